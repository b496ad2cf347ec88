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
--       8  n         9 .. 8+n  one spec per counter: "kind limit a b entity ttl"
--            r  requests   a = length of the sliding window (0: fixed)   b = start of the fixed one
--            s  sessions
--            f  USD, fixed window
--            o  USD, rolling        a = length   b = bucket
--            g  USD, from first     a = length
-- Answer {0, bound provider or ''}               taken (or: could be)
--        {1, index, current, reset ms, wait ms}  counter `index` (from 0) is at its limit; 0 = unknown
--        {2, index, ..}                          money counters that have to be seeded first
--
-- Counters are hashes: base (ms of the seeding), until (a provisional seed counts until then), spent, and for
-- rolling windows the buckets by number with tail and head; for from-first windows start.
-- Money moves by HINCRBY, exact to 64 bits. Comparisons and answers pass through Lua's doubles, exact to
-- 2^53 nano-USD = 9 million USD; beyond, a comparison may be off by a few nano-dollars.

local mode, request, estimate, lease = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
local member, member_ttl, n = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local now = tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function number(text) return tonumber(text or 0) or 0 end

-- Exact to 64 bits; '-0' is no integer to Redis.
local function subtract(key, field, amount)
  if amount ~= '0' then redis.call('HINCRBY', key, field, '-' .. amount) end
end

-- Live reservations of a money entity. Leases of dead proxies are given back here, some at a time.
local live = {}
local function reserved(entity)
  if live[entity] then return live[entity] end
  local leases, amounts = KEYS[2 + n + 2 * entity], KEYS[3 + n + 2 * entity]
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 500)) do
    local amount = redis.call('HGET', amounts, id)
    if amount then
      redis.call('HDEL', amounts, id)
      subtract(amounts, 'sum', amount)
    end
    redis.call('ZREM', leases, id)
  end
  live[entity] = number(redis.call('HGET', amounts, 'sum'))
  return live[entity]
end

-- Removes what has left a rolling window, each bucket once in its life; answers the oldest that is left.
local function roll(key, length, bucket, tail, head)
  local gone = math.floor((now - length) / bucket) - 1
  if not tail or tail > gone then return tail end
  for number = tail, math.min(gone, head) do
    local amount = redis.call('HGET', key, number)
    if amount then
      redis.call('HDEL', key, number)
      subtract(key, 'spent', amount)
    end
  end
  if gone >= head then
    redis.call('HDEL', key, 'tail', 'head')
    return nil
  end
  local oldest = gone + 1
  while oldest < head and redis.call('HEXISTS', key, oldest) == 0 do oldest = oldest + 1 end
  redis.call('HSET', key, 'tail', oldest)
  return oldest
end

local function seeded(base, till) return base and (not till or tonumber(till) > now) end

-- Each returns: current, reset ms (0 unknown), wait ms (0 unknown); current nil: not seeded.
local read = {}

function read.f(key)
  local row = redis.call('HMGET', key, 'base', 'until', 'spent')
  if not seeded(row[1], row[2]) then return nil end
  return number(row[3]), 0, 0
end

function read.o(key, spec)
  local row = redis.call('HMGET', key, 'base', 'until', 'tail', 'head')
  if not seeded(row[1], row[2]) then return nil end
  local tail = roll(key, spec.a, spec.b, tonumber(row[3] or nil), tonumber(row[4] or nil))
  local wait = tail and (tail + 1) * spec.b + spec.a - now or 0
  return number(redis.call('HGET', key, 'spent')), 0, wait
end

function read.g(key, spec)
  local row = redis.call('HMGET', key, 'base', 'until', 'spent', 'start')
  if not seeded(row[1], row[2]) then return nil end
  local finish = row[4] and tonumber(row[4]) + spec.a
  if not finish or finish <= now then return 0, 0, 0 end
  return number(row[3]), finish, finish - now
end

function read.r(key, spec)
  local from = spec.a > 0 and now - spec.a or spec.b - 1
  redis.call('ZREMRANGEBYSCORE', key, '-inf', from)
  local count = redis.call('ZCARD', key)
  if count < spec.limit or spec.a == 0 then return count, 0, 0 end
  -- The request whose leaving makes room.
  local row = redis.call('ZRANGE', key, count - spec.limit, count - spec.limit, 'WITHSCORES')
  local reset = tonumber(row[2]) + spec.a
  return count, reset, reset - now
end

function read.s(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if member ~= '' and redis.call('ZSCORE', key, member) then return -1, 0, 0 end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return redis.call('ZCARD', key), 0, first[2] and tonumber(first[2]) - now or 0
end

local specs, missing = {}, {2}
for i = 1, n do
  local kind, limit, a, b, entity, ttl =
    string.match(ARGV[8 + i], '^(%a) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  local spec = {
    kind = kind, limit = tonumber(limit), a = tonumber(a), b = tonumber(b),
    entity = tonumber(entity), ttl = ttl, money = kind ~= 'r' and kind ~= 's',
  }
  specs[i] = spec
  if mode ~= 'force' then
    local current, reset, wait = read[kind](KEYS[1 + i], spec)
    if not current then
      missing[#missing + 1] = i - 1
    else
      if spec.money then current = current + reserved(spec.entity) end
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
    redis.call('PEXPIRE', key, spec.ttl)
  elseif spec.kind == 's' then
    redis.call('ZADD', key, now + member_ttl, member)
    redis.call('PEXPIRE', key, spec.ttl)
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
