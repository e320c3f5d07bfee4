-- Counts an attempt at a task, or takes one back, if its round is open. The count is a field of the
-- round's progress, whose other fields begin with a digit, so that both go together.
-- KEYS: thread, the round's progress. ARGV: the round's field, the count's field, 1 or -1.
-- Answers the count, or nothing if the round is over.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local count = tonumber(redis.call('HGET', KEYS[2], ARGV[2]) or '0')
if count + ARGV[3] < 0 then return 0 end
return redis.call('HINCRBY', KEYS[2], ARGV[2], ARGV[3])
