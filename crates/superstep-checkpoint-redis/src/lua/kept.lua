-- What a thread's hash and its own sets hold: {head, row, watch, records, oldest, bytes, goes away,
-- rounds, open things with scores, blobs with scores}.
-- KEYS: thread, its questions and timers, index of its blobs.
local records, oldest, bytes, rounds = 0, nil, 0, {}
local fields = redis.call('HKEYS', KEYS[1])
for _, field in ipairs(fields) do
  if string.match(field, '^%d+$') then
    local version = tonumber(field)
    records, bytes = records + 1, bytes + redis.call('HSTRLEN', KEYS[1], field)
    if not oldest or version < oldest then oldest = version end
  elseif string.sub(field, 1, 2) == 'r:' then
    rounds[#rounds + 1] = field
  end
end
if #fields == 0 then return false end
local held = redis.call('HMGET', KEYS[1], 'h', 'i', 'w')
return {
  held[1], held[2], held[3], records, oldest or 0, bytes, redis.call('PTTL', KEYS[1]) >= 0 and 1 or 0,
  rounds, redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'),
}
