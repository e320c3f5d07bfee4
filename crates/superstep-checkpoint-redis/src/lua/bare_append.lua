-- The least that a conditional append is: compare the head, write a record and the head.
-- KEYS: thread. ARGV: expected head, head, record.
-- Answers 1 if it was appended.
local head = redis.call('HGET', KEYS[1], 'h')
if (head or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3], 'h', ARGV[2])
return 1
