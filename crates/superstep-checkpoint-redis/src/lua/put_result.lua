-- Puts a task's result if it is absent and its round is open.
-- KEYS: thread, the round's results. ARGV: the round's field, task, result.
-- Answers {what became of it, how many results there are}.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return { redis.call('EXISTS', KEYS[1]) == 1 and 2 or 3, 0 }
end
local stored = redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3])
return { stored == 1 and 0 or 1, redis.call('HLEN', KEYS[2]) }
