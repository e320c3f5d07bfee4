-- The oldest watched threads of a shard: thread, since, head, row, flat.
-- KEYS[1] is the watch index. ARGV: from, until, the most threads, the key of a thread without its id.
-- The threads' own keys are in the slot of KEYS[1], and only read.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local rows = {}
for i = 1, #found, 2 do
  local held = redis.call('HMGET', ARGV[4] .. found[i], 'w', 'i')
  if held[1] and held[2] then
    rows[#rows + 1] = found[i]
    rows[#rows + 1] = found[i + 1]
    rows[#rows + 1] = held[1]
    rows[#rows + 1] = held[2]
  end
end
return rows
