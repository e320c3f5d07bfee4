-- Removes a thread from the watch index if its entry is of exactly this head.
-- KEYS: thread, watch index. ARGV: head, the thread's id.
if redis.call('HGET', KEYS[1], 'w') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'w')
redis.call('ZREM', KEYS[2], ARGV[2])
return 1
