-- Puts an entry of a task's progress if it is absent and its round is open.
-- KEYS: thread, the round's progress. ARGV: the round's field, index and task, entry.
-- Answers {what became of it, the entry that was there}.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return { redis.call('EXISTS', KEYS[1]) == 1 and 2 or 3, '' }
end
if redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3]) == 1 then return { 0, '' } end
return { 1, redis.call('HGET', KEYS[2], ARGV[2]) }
