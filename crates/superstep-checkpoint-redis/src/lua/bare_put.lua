-- The least that a task's result is: a field if it is absent.
-- KEYS: results. ARGV: field, result.
-- Answers how many there are.
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HLEN', KEYS[1])
