-- Renews a graph's registration by the server's clock, and answers the namespace's shards: the
-- ones that it has, or this process's if the server has lost them.
-- KEYS: registrations, meta. ARGV: graph, about, shards, format.
redis.call('HSETNX', KEYS[2], 'shards', ARGV[3])
redis.call('HSETNX', KEYS[2], 'format', ARGV[4])
local now = redis.call('TIME')
local ms = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], ms .. ':' .. ARGV[2])
return redis.call('HGET', KEYS[2], 'shards')
