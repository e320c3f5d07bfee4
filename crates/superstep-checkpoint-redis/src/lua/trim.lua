-- Removes the records before a snapshot, if that very record is there and carries one.
-- Blobs that no record from it on refers to are given a time to live.
-- KEYS: the thread, the index of its blobs, blobs that may be such.
-- ARGV: version, nonce and version as the record begins, time to live, the ids of the blobs.
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record or string.sub(record, 1, #ARGV[2]) ~= ARGV[2] then return -1 end
if #KEYS > 2 then
  local kept = 4503599627370496 + tonumber(ARGV[1])
  local now = redis.call('TIME')
  local gone = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3])
  for i = 3, #KEYS do
    local score = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[i + 1]) or 0)
    if score >= 4503599627370496 and score < kept then
      redis.call('PEXPIRE', KEYS[i], ARGV[3])
      redis.call('ZADD', KEYS[2], gone, ARGV[i + 1])
    end
  end
  if redis.call('ZCOUNT', KEYS[2], '4503599627370496', '+inf') == 0 then
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
  end
end
local removed, last = 0, tonumber(ARGV[1]) - 1
while last > 0 do
  local names = {}
  for v = last, math.max(1, last - 499), -1 do names[#names + 1] = string.format('%d', v) end
  local gone = redis.call('HDEL', KEYS[1], unpack(names))
  removed = removed + gone
  if gone < #names then break end
  last = last - #names
end
return removed
