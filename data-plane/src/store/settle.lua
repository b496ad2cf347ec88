-- Ends a request: gives its reservations back, charges what it really cost to its caller and its provider,
-- refreshes its session and binding. A second settlement of the same request charges nothing. Follows count.lua.
--
-- KEYS  1  ids settled lately (set)      2  binding of the session (string: provider id)
--       then the keys of the caller's counters and of the provider's (see count.lua)
-- ARGV  1  how many ms ago the request ended
--       2  now in ms; 0: this server's clock (see count.lua)
--       3  request id (16 bytes)      4  nano-USD to charge; '0': nothing
--       5  session member, as in reserve.lua; '' none      6  ms that it counts from the request's end on
--       7  provider to bind; '' none  8  ms that the binding holds
--       9  ms for which settled ids are remembered   10  1: the session goes on counting at the provider
--      11  the caller's specs, as in reserve.lua     12  the provider's
-- Answer 1: charged; 0: had been settled before; 2: a counter was left out that is taken to know it from the ledger.

local request, actual = ARGV[3], ARGV[4]
local member, member_ttl = ARGV[5], tonumber(ARGV[6])
-- By the clock that also decides when windows begin and end.
local ended = now - tonumber(ARGV[1])

next_key()
next_key()
local caller, provider = parse_group(ARGV[11]), parse_group(ARGV[12])
caller.stays, provider.stays = true, ARGV[10] == '1'

local charge = {}
local answer = 1

function charge.f(spec)
  redis.call('HINCRBY', spec.key, 'spent', actual)
end

function charge.o(spec)
  local key, bucket = spec.key, math.floor(ended / spec.b)
  if (bucket + 1) * spec.b <= now - spec.a then return end
  local row = redis.call('HMGET', key, 'tail', 'head')
  local tail, head = tonumber(row[1] or nil), tonumber(row[2] or nil)
  redis.call('HINCRBY', key, bucket, actual)
  redis.call('HINCRBY', key, 'spent', actual)
  if not tail or bucket < tail then redis.call('HSET', key, 'tail', bucket) end
  if not head or bucket > head then redis.call('HSET', key, 'head', bucket) end
end

function charge.g(spec)
  local start = tonumber(redis.call('HGET', spec.key, 'start') or nil)
  if start and ended < start + spec.a then
    redis.call('HINCRBY', spec.key, 'spent', actual)
  else
    redis.call('HSET', spec.key, 'start', ended, 'spent', actual)
  end
end

if #caller.owners + #provider.owners > 0 then
  if redis.call('SADD', KEYS[1], request) == 0 then return 0 end
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
end

local function settle(group)
  for _, owner in ipairs(group.owners) do
    local amount = redis.call('HGET', owner.amounts, request)
    -- Only amounts above 0 are reserved.
    if amount then
      redis.call('HDEL', owner.amounts, request)
      redis.call('HINCRBY', owner.amounts, 'sum', '-' .. amount)
      redis.call('ZREM', owner.leases, request)
    end
  end
  for _, spec in ipairs(group) do
    if spec.kind == 's' then
      if string.sub(member, 1, 1) == 's' and group.stays then
        local expiry = ended + member_ttl
        -- A settlement that comes late says nothing against a session that has gone on meanwhile.
        if expiry > now and number(redis.call('ZSCORE', spec.key, member)) < expiry then
          redis.call('ZADD', spec.key, expiry, member)
          expire(spec.key, spec.ttl)
        end
      elseif member ~= '' then
        redis.call('ZREM', spec.key, member)
      end
    elseif spec.money and actual ~= '0' then
      -- A settlement that comes late, after an outage: a counter seeded since then knows it from the ledger.
      local row = redis.call('HMGET', spec.key, 'base', 'until', 'known')
      local known = row[1] and not row[2] and tonumber(row[3] or tonumber(row[1]) - 3000)
      -- After the clock was set back nobody can tell, and what may be new is charged.
      if known and ended < known and known <= now then
        answer = 2
      else
        charge[spec.kind](spec)
        expire(spec.key, spec.ttl)
      end
    end
  end
end
settle(caller)
settle(provider)

if ARGV[7] ~= '' then redis.call('SET', KEYS[2], ARGV[7], 'PX', ARGV[8]) end
return answer
