-- Replaces a thread by a tombstone, if the head is exactly the expected one.
-- KEYS: thread, watch index, questions, timers, the list that the thread is in, then everything
-- else of the thread, which goes away.
-- ARGV: expected head, tombstone's head, version, head with snapshot, record, time to live, the
-- thread's id, how many members of questions follow, they, members of timers.
local held = redis.call('HGET', KEYS[1], 'h')
local current = held and string.match(held, '^[^:]*') or ''
if current ~= ARGV[1] then
  local record = redis.call('HGET', KEYS[1], ARGV[3])
  if record and string.sub(record, 1, 16) == string.sub(ARGV[2], -16) then return 0 end
  return { 1, current }
end
redis.call('UNLINK', KEYS[1])
for i = 6, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('HSET', KEYS[1], 'h', ARGV[4], ARGV[3], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZREM', KEYS[2], ARGV[7])
redis.call('ZREM', KEYS[5], ARGV[7])
for i = 9, #ARGV do
  local index = i < 9 + ARGV[8] and KEYS[3] or KEYS[4]
  redis.call('ZREM', index, ARGV[i])
end
return 0
