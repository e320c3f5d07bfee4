-- Removes the records before a snapshot, if that very record is there and carries one.
-- KEYS[1] is the thread. ARGV: version, nonce and version as the record begins.
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record or string.sub(record, 1, #ARGV[2]) ~= ARGV[2] then return -1 end
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
