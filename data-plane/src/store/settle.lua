-- Ends a request: gives its reservation back, charges what it really cost, refreshes its session and binding.
-- A second settlement of the same request charges nothing.
--
-- KEYS  1            ids settled lately (set)
--       2            binding of the session (string: provider id)
--       3 .. 2+n     one per counter, in the order of the specs
--       then 2 each  per money entity: leases, amounts (see reserve.lua)
-- ARGV  1  now in ms; 0: this server's clock
--       2  when the request ended, ms, by the proxy's clock
--       3  request id (16 bytes)      4  nano-USD to charge; '0': nothing
--       5  session member, as in reserve.lua; '' none      6  ms until it expires
--       7  provider to bind; '' none  8  ms that the binding holds
--       9  ms for which settled ids are remembered   10  slack of the ledger in ms
--       11 one spec per counter, each closed by ';', as in reserve.lua
-- Answer 1: charged; 0: had been settled before.

local ended, request, actual = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local member, member_ttl = ARGV[5], tonumber(ARGV[6])
local slack = tonumber(ARGV[10])
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local specs = {}
for text in string.gmatch(ARGV[11], '[^;]+') do specs[#specs + 1] = text end
local n = #specs

-- As in count.lua.
local function expire(key, ttl)
  ttl = tonumber(ttl)
  if ttl > 1e12 then ttl = math.max(ttl - now, 3600000) end
  redis.call('PEXPIRE', key, string.format('%.0f', ttl))
end

local charge = {}

function charge.f(key)
  redis.call('HINCRBY', key, 'spent', actual)
end

function charge.o(key, a, b)
  local bucket = math.floor(ended / b)
  if (bucket + 1) * b <= now - a then return end
  local row = redis.call('HMGET', key, 'tail', 'head')
  local tail, head = tonumber(row[1] or nil), tonumber(row[2] or nil)
  redis.call('HINCRBY', key, bucket, actual)
  redis.call('HINCRBY', key, 'spent', actual)
  if not tail or bucket < tail then redis.call('HSET', key, 'tail', bucket) end
  if not head or bucket > head then redis.call('HSET', key, 'head', bucket) end
end

function charge.g(key, a)
  local start = tonumber(redis.call('HGET', key, 'start') or nil)
  if start and ended < start + a then
    redis.call('HINCRBY', key, 'spent', actual)
  else
    redis.call('HSET', key, 'start', ended, 'spent', actual)
  end
end

local entities = (#KEYS - 2 - n) / 2
if entities > 0 then
  if redis.call('SADD', KEYS[1], request) == 0 then return 0 end
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
  for entity = 0, entities - 1 do
    local leases, amounts = KEYS[3 + n + 2 * entity], KEYS[4 + n + 2 * entity]
    local amount = redis.call('HGET', amounts, request)
    -- Only amounts above 0 are reserved.
    if amount then
      redis.call('HDEL', amounts, request)
      redis.call('HINCRBY', amounts, 'sum', '-' .. amount)
      redis.call('ZREM', leases, request)
    end
  end
end

for i = 1, n do
  local key = KEYS[2 + i]
  local kind, a, b, ttl = string.match(specs[i], '^(%a) %d+ (%d+) (%d+) %d+ (%d+)$')
  if kind == 's' then
    if string.sub(member, 1, 1) == 's' then
      redis.call('ZADD', key, now + member_ttl, member)
      expire(key, ttl)
    elseif member ~= '' then
      redis.call('ZREM', key, member)
    end
  elseif kind ~= 'r' and actual ~= '0' then
    -- A settlement that comes late, after an outage: a counter seeded since then knows it from the ledger.
    local row = redis.call('HMGET', key, 'base', 'until')
    if not (row[1] and not row[2] and ended + slack < tonumber(row[1])) then
      charge[kind](key, tonumber(a), tonumber(b))
      expire(key, ttl)
    end
  end
end

if ARGV[7] ~= '' then redis.call('SET', KEYS[2], ARGV[7], 'PX', ARGV[8]) end
return 1
