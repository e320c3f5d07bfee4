-- Appends one record if the head is exactly the expected one.
-- KEYS[1] is the thread; the other keys come in the order in which the parts below use them.
-- ARGV: expected head, head, version, head with snapshot, record, then the parts that change,
-- always in this order: o(utcome) l(ist row) w(atch) r(ounds that begin) z(set pairs: questions,
-- timers) e(nded rounds) b(lobs).
-- Everything is checked before the first write, and the first write is one that a server out of
-- memory refuses: so either all of it happens or nothing.
local call, sub = redis.call, string.sub
local thread, expected, head, version = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local a, k = 6, 2

local held = call('HMGET', thread, 'h', 'i')
local current = ''
if held[1] then current = string.match(held[1], '^[^:]*') end
local moved = current ~= expected
if moved then
  local record = call('HGET', thread, version)
  if record and sub(record, 1, 16) == sub(head, -16) then return 0 end
end

local outcome
if ARGV[a] == 'o' then
  outcome = { KEYS[k], ARGV[a + 1], ARGV[a + 2] }
  local decided = call('GET', KEYS[k])
  if decided then return { 2, decided } end
  a, k = a + 3, k + 1
end
if moved then return { 1, current } end

local fields, n = { 'h', ARGV[4], version, ARGV[5] }, 4
local was, list, unlist, score, member, graphs, graph = held[2], nil, nil, nil, nil, nil, nil
if ARGV[a] == 'l' then
  -- keys: graphs, the four lists of this graph by status, and with a seventh argument the list
  -- that an earlier try was told to bring along, for the row that begins like that argument
  local row, same = ARGV[a + 1], tonumber(ARGV[a + 2])
  score, member = ARGV[a + 3], ARGV[a + 4]
  graphs, graph = KEYS[k], ARGV[a + 5]
  list = KEYS[k + tonumber(sub(row, 1, 1))]
  if was and sub(was, 2, same) == sub(row, 2, same) then
    if sub(was, 1, 1) ~= sub(row, 1, 1) then unlist = KEYS[k + tonumber(sub(was, 1, 1))] end
    graphs = nil
  elseif was then
    local old = ARGV[a + 6]
    if old == '' or sub(was, 1, #old) ~= old then return { 3, was } end
    unlist = KEYS[k + 5]
  end
  fields[5], fields[6], n = 'i', row, 6
  k = k + (ARGV[a + 6] == '' and 5 or 6)
  a = a + 7
end

local watch
if ARGV[a] == 'w' then
  watch = { KEYS[k], ARGV[a + 1], ARGV[a + 2] }
  if watch[2] == '1' then fields[n + 1], fields[n + 2], n = 'w', head, n + 2 end
  a, k = a + 3, k + 1
end

if ARGV[a] == 'r' then
  local last = a + 1 + tonumber(ARGV[a + 1])
  for i = a + 2, last do fields[n + 1], fields[n + 2], n = ARGV[i], '', n + 2 end
  a = last + 1
end

call('HSET', thread, unpack(fields))
if not was then call('PERSIST', thread) end
if list then
  if unlist then call('ZREM', unlist, member) end
  call('ZADD', list, score, member)
  if graphs then call('SADD', graphs, graph) end
end
if watch then
  if watch[2] == '1' then
    local now = call('TIME')
    call('ZADD', watch[1], now[1] .. string.format('%03d', math.floor(now[2] / 1000)), watch[3])
  else
    call('HDEL', thread, 'w')
    call('ZREM', watch[1], watch[3])
  end
end
while ARGV[a] == 'z' do
  local shard, own = KEYS[k], KEYS[k + 1]
  local last = a + 1 + 2 * tonumber(ARGV[a + 1])
  for i = a + 2, last, 2 do
    call('ZREM', shard, ARGV[i])
    call('ZREM', own, ARGV[i + 1])
  end
  a = last + 1
  last = a + 3 * tonumber(ARGV[a])
  for i = a + 1, last, 3 do
    call('ZADD', shard, ARGV[i], ARGV[i + 1])
    call('ZADD', own, ARGV[i], ARGV[i + 2])
  end
  a, k = last + 1, k + 2
end
if ARGV[a] == 'e' then
  local ttl, last = ARGV[a + 1], a + 2 + tonumber(ARGV[a + 2])
  for i = a + 3, last do
    call('HDEL', thread, ARGV[i])
    call('PEXPIRE', KEYS[k], ttl)
    call('PEXPIRE', KEYS[k + 1], ttl)
    k = k + 2
  end
  a = last + 1
end
if ARGV[a] == 'b' then
  -- the score says that the blob stays, and which record referred to it last: 2^52 more than that
  local index, named = KEYS[k], string.format('%.0f', 4503599627370496 + tonumber(version))
  call('PERSIST', index)
  for i = a + 1, #ARGV do
    k = k + 1
    call('PERSIST', KEYS[k])
    call('ZADD', index, named, ARGV[i])
  end
end
if outcome then call('SET', outcome[1], outcome[2], 'PX', outcome[3]) end
return 0
