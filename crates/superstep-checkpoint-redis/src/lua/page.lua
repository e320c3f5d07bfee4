-- A page of one or many sorted sets of a shard, merged by score, then member: score, member, and
-- the thread's row where asked for, flat.
-- KEYS[1] is the set, or the shard's set of graphs where statuses are given.
-- ARGV: from score, whether a member follows, the member after which the page begins, the most
-- rows, statuses as digits (or ''), the graph's name or '', the keys of lists and of threads
-- without status, graph and id. All of them are in the slot of KEYS[1], and only read.
local from, member, most = ARGV[1], ARGV[2] == '1' and ARGV[3], tonumber(ARGV[4])

-- Byte by byte: Lua's own comparison of strings asks the server's locale.
local function less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local keys = KEYS
if ARGV[5] ~= '' then
  local graphs = { ARGV[6] }
  if ARGV[6] == '' then graphs = redis.call('SMEMBERS', KEYS[1]) end
  keys = {}
  for _, graph in ipairs(graphs) do
    for status in string.gmatch(ARGV[5], '%d') do
      keys[#keys + 1] = ARGV[7] .. status .. ':' .. graph
    end
  end
end

local chunk = math.max(4, math.floor(most / math.max(1, #keys)) + 1)
local function fill(set)
  set.found = redis.call('ZRANGEBYSCORE', set.key, from, '+inf', 'WITHSCORES', 'LIMIT', set.offset, chunk)
  set.offset, set.i = set.offset + chunk, 1
end
local function advance(set)
  set.i = set.i + 2
  if set.i > #set.found then fill(set) end
end
local function before(a, b)
  local x, y = tonumber(a.found[a.i + 1]), tonumber(b.found[b.i + 1])
  if x ~= y then return x < y end
  return less(a.found[a.i], b.found[b.i])
end

local sets = {}
for _, key in ipairs(keys) do
  local set = { key = key, offset = 0 }
  fill(set)
  while member and #set.found > 0 and tonumber(set.found[set.i + 1]) == tonumber(from)
      and not less(member, set.found[set.i]) do
    advance(set)
  end
  if #set.found > 0 then sets[#sets + 1] = set end
end

local rows = {}
while #sets > 0 and #rows < 3 * most do
  local first = 1
  for i = 2, #sets do
    if before(sets[i], sets[first]) then first = i end
  end
  local set = sets[first]
  rows[#rows + 1] = set.found[set.i + 1]
  rows[#rows + 1] = set.found[set.i]
  rows[#rows + 1] = ARGV[8] ~= '' and redis.call('HGET', ARGV[8] .. set.found[set.i], 'i') or ''
  advance(set)
  if #set.found == 0 then table.remove(sets, first) end
end
return rows
