-- Asks every counter of a request at once and takes from all of them or from none.
--
-- KEYS  1            binding of the session (string: provider id)
--       2 .. 1+n     one per counter, in the order of the specs
--       then 2 each  per money entity e (0, 1, ..): leases (zset request -> expiry ms),
--                    amounts (hash request -> nano-USD, and the field `sum`)
-- ARGV  1  mode: take = check, then take; check = only check; force = take without checking
--       2  now in ms; 0: this server's clock, so that proxies with different clocks agree
--       3  request id (16 bytes)      4  estimate, nano-USD      5  lease in ms
--       6  session member: 's' .. session id, or 'r' .. request id (its own session); '' in a mere check
--       7  ms until that member expires
--       8  one spec per counter, each closed by ';': "kind limit a b entity ttl"
--            r  requests   a = length of the sliding window (0: fixed)   b = start of the fixed one
--            s  sessions
--            f  USD, fixed window
--            o  USD, rolling        a = length   b = bucket
--            g  USD, from first     a = length
--            ttl: ms, or the instant at which the counter is over
-- Answer {0, bound provider or ''}               taken (or: could be)
--        {1, index, current, reset ms, wait ms}  counter `index` (from 0) is at its limit; 0 = unknown
--        {2, index, ..}                          money counters that have to be seeded first

local mode, request, estimate, lease = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
local member, member_ttl = ARGV[6], tonumber(ARGV[7])
local specs = parse_all(8)
local n = #specs

function read.s(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if member ~= '' and redis.call('ZSCORE', key, member) then return -1, 0, 0 end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return redis.call('ZCARD', key), 0, first[2] and tonumber(first[2]) - now or 0
end

local missing = {2}
for i = 1, n do
  local spec = specs[i]
  if mode ~= 'force' then
    local current, reset, wait = read[spec.kind](KEYS[1 + i], spec)
    if not current then
      missing[#missing + 1] = i - 1
    else
      if spec.money then current = current + reserved(KEYS[2 + n + 2 * spec.entity], KEYS[3 + n + 2 * spec.entity]) end
      if current >= spec.limit then return {1, i - 1, current, reset, wait} end
    end
  end
end
if #missing > 1 then return missing end
if mode == 'check' then return {0, ''} end

for i = 1, n do
  local key, spec = KEYS[1 + i], specs[i]
  if spec.kind == 'r' then
    redis.call('ZADD', key, now, request)
    expire(key, spec.ttl)
  elseif spec.kind == 's' then
    redis.call('ZADD', key, now + member_ttl, member)
    expire(key, spec.ttl)
  end
end
for entity = 0, (#KEYS - 1 - n) / 2 - 1 do
  local leases, amounts = KEYS[2 + n + 2 * entity], KEYS[3 + n + 2 * entity]
  if estimate ~= '0' and redis.call('HSETNX', amounts, request, estimate) == 1 then
    redis.call('HINCRBY', amounts, 'sum', estimate)
    redis.call('ZADD', leases, now + lease, request)
    -- Both outlive every lease in them, and go together.
    redis.call('PEXPIRE', leases, lease + 60000)
    redis.call('PEXPIRE', amounts, lease + 60000)
  end
end
if mode == 'take' and string.sub(member, 1, 1) == 's' then
  return {0, redis.call('GET', KEYS[1]) or ''}
end
return {0, ''}
