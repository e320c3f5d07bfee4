-- What a thread has beside its records, for its deletion: {head, row, open rounds, questions and
-- timers, blobs}.
-- KEYS: thread, its questions and timers, index of its blobs.
local held = redis.call('HMGET', KEYS[1], 'h', 'i')
if not held[1] then return false end
local rounds = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'r:' then rounds[#rounds + 1] = field end
end
return {
  held[1], held[2], rounds,
  redis.call('ZRANGE', KEYS[2], 0, -1), redis.call('ZRANGE', KEYS[3], 0, -1),
}
