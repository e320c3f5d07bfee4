-- The oldest watched threads of a shard: thread, since, head, flat.
-- KEYS[1] is the watch index. ARGV: until, the most threads, the key of a thread without its id.
-- The threads' own keys are in the slot of KEYS[1], and only read.
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local rows = {}
for i = 1, #found, 2 do
  local head = redis.call('HGET', ARGV[3] .. found[i], 'w')
  if head then
    rows[#rows + 1] = found[i]
    rows[#rows + 1] = found[i + 1]
    rows[#rows + 1] = head
  end
end
return rows
