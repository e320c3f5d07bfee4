-- Whether an entry belongs to nothing; removed, or given a time to live, if so asked.
-- KEYS: where the entry is, its thread, the thread's open things, the index of its blobs.
-- ARGV: kind (w, d, q, l as in strays.lua; x: all open things; m: a round's results or progress;
-- b: a blob), the member of the index, what its thread has for it, '' to ask or else to remove,
-- with the time to live in milliseconds for m and b.
local kind, member, has, remove = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if kind == 'm' or kind == 'b' then
  if redis.call('PTTL', KEYS[1]) ~= -1 then return 0 end
  if kind == 'm' and redis.call('HEXISTS', KEYS[2], has) == 1 then return 0 end
  if kind == 'b' and tonumber(redis.call('ZSCORE', KEYS[4], has) or 0) >= 4503599627370496 then
    return 0
  end
  if remove ~= '' then redis.call('PEXPIRE', KEYS[1], remove) end
  return 1
end
if kind == 'x' then
  if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
  if remove ~= '' then redis.call('UNLINK', KEYS[1]) end
  return 1
end
if not redis.call('ZSCORE', KEYS[1], member) then return 0 end
if kind == 'w' then
  if redis.call('HEXISTS', KEYS[2], 'w') == 1 then return 0 end
elseif kind == 'l' then
  local row = redis.call('HGET', KEYS[2], 'i')
  if row and string.sub(row, 1, #has) == has then return 0 end
elseif redis.call('ZSCORE', KEYS[3], has) then
  return 0
end
if remove ~= '' then redis.call('ZREM', KEYS[1], member) end
return 1
