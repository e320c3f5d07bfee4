-- Replaces a thread's index entries, if its head is exactly the expected one.
-- KEYS: thread, its questions and timers, watch index, questions, timers, graphs, then every list
-- that it could be in.
-- ARGV: head, the thread's id, watched ('1' or '0'), how many lists, which of them is right (0 for
-- none), row, score, graph, how many rounds, they, how many of questions and timers to drop, each
-- as index ('q' or 'd') and member, how many to set, each as index, score, member, own member.
local held = redis.call('HGET', KEYS[1], 'h')
if not held or string.match(held, '^[^:]*') ~= ARGV[1] then return 0 end
local thread = ARGV[2]
local right = tonumber(ARGV[5])
for i = 1, tonumber(ARGV[4]) do
  if i ~= right then redis.call('ZREM', KEYS[6 + i], thread) end
end
if right > 0 then
  redis.call('HSET', KEYS[1], 'i', ARGV[6])
  redis.call('ZADD', KEYS[6 + right], ARGV[7], thread)
  redis.call('SADD', KEYS[6], ARGV[8])
else
  redis.call('HDEL', KEYS[1], 'i')
end
if ARGV[3] == '1' then
  redis.call('HSETNX', KEYS[1], 'w', ARGV[1])
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[3], 'NX', now[1] .. string.format('%03d', math.floor(now[2] / 1000)), thread)
else
  redis.call('HDEL', KEYS[1], 'w')
  redis.call('ZREM', KEYS[3], thread)
end
local a = 9
local wanted = {}
for i = a + 1, a + tonumber(ARGV[a]) do
  wanted[ARGV[i]] = true
  redis.call('HSET', KEYS[1], ARGV[i], '')
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'r:' and not wanted[field] then redis.call('HDEL', KEYS[1], field) end
end
a = a + tonumber(ARGV[a]) + 1
local indexes = { q = KEYS[4], d = KEYS[5] }
local last = a + 2 * tonumber(ARGV[a])
for i = a + 1, last, 2 do redis.call('ZREM', indexes[ARGV[i]], ARGV[i + 1]) end
a = last + 1
redis.call('DEL', KEYS[2])
last = a + 4 * tonumber(ARGV[a])
for i = a + 1, last, 4 do
  redis.call('ZADD', indexes[ARGV[i]], ARGV[i + 1], ARGV[i + 2])
  redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i + 3])
end
return 1
