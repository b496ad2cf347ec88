-- Asks every counter of a request at once and takes from all of them or from none: the caller's, and those of the
-- first provider in line that has room. Gives back what the request held at the provider that it leaves.
--
-- KEYS  1  binding of the session (string: provider id); then the keys of each group (see count.lua): the caller's
--       counters, those that are left, those of each candidate. Of a money entity: leases (zset request -> expiry
--       ms), amounts (hash request -> nano-USD, and the field `sum`)
-- ARGV  1  mode: take = check, then take; check = only check; force = take without checking; back = give back, from
--          the caller and all candidates
--       2  now in ms; 0: this server's clock
--       3  request id (16 bytes)      4  lease in ms
--       5  session member: 's' .. session id, or 'r' .. request id (its own session); '' in a mere check
--       6  ms until that member expires
--       7  provider that the session is bound to; '' none, '?' as the binding says
--       8  1: there are no other candidates, so without room at any of them nothing is taken
--       9  what happens to the session where something is left or given back: k = stays, a = goes, or goes if it was
--          counted or renewed within so many ms, u = goes, unless it was
--          within so many ms
--      10  1: the request does not count where it leaves
--      11  the caller's group: "estimate kind limit a b entity ttl;.."
--      12  the group that is left, in the same form; '' none
--      13 ..  each candidate: "estimate provider specs", provider 0: not for the session that is bound to it
--       kind r  requests   a = length of the sliding window (0: fixed)   b = start of the fixed one
--            s  sessions
--            f  USD, fixed window
--            o  USD, rolling        a = length   b = bucket
--            g  USD, from first     a = length
--            ttl: ms, or the instant at which the counter is over
-- Answer {0, bound provider or '', candidate (from 1; 0 none), 1 if the session is new there}   taken
--        {1, index, current, reset ms, wait ms}  counter `index` (from 0) is at its limit; 0 = unknown
--        {2, index, ..}                          money counters that have to be seeded first
--        {3}                                     no candidate has room; nothing was taken

local mode, request, lease = ARGV[1], ARGV[3], tonumber(ARGV[4])
local member, member_ttl, leaves = ARGV[5], tonumber(ARGV[6]), ARGV[9]

local binding = next_key()
local first = 0
local function group_of(text, words)
  local group = parse_group(text)
  group.estimate, group.first = words, first
  first = first + #group
  return group
end
local estimate, specs = string.match(ARGV[11], '^(%d+) (.*)$')
local caller = group_of(specs, estimate)
local left
if ARGV[12] ~= '' then left = parse_group(string.match(ARGV[12], '^%d+ (.*)$')) end
local line = {}
for at = 13, #ARGV do
  local estimate, provider, specs = string.match(ARGV[at], '^(%d+) (%d+) (.*)$')
  line[#line + 1] = group_of(specs, estimate)
  line[#line].provider = provider
end

function read.s(spec)
  local key = spec.key
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if member ~= '' and redis.call('ZSCORE', key, member) then return -1, 0, 0 end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return redis.call('ZCARD', key), 0, first[2] and tonumber(first[2]) - now or 0
end

-- What keeps the group from taking: the answer to give; nil: it has room.
local function obstacle(group)
  local missing = {2}
  for i, spec in ipairs(group) do
    local current, reset, wait = read[spec.kind](spec)
    if not current then
      missing[#missing + 1] = group.first + i - 1
    else
      if spec.money then current = current + reserved(group.owners[spec.entity + 1]) end
      if current >= spec.limit then return {1, group.first + i - 1, current, reset, wait} end
    end
  end
  if #missing > 1 then return missing end
end

-- Says whether the session is new there.
local function take(group)
  local fresh = 0
  for _, spec in ipairs(group) do
    if spec.kind == 'r' then
      redis.call('ZADD', spec.key, now, request)
      expire(spec.key, spec.ttl)
    elseif spec.kind == 's' then
      fresh = redis.call('ZADD', spec.key, now + member_ttl, member)
      expire(spec.key, spec.ttl)
    end
  end
  if group.estimate == '0' then return fresh end
  for _, owner in ipairs(group.owners) do
    if redis.call('HSETNX', owner.amounts, request, group.estimate) == 1 then
      redis.call('HINCRBY', owner.amounts, 'sum', group.estimate)
    end
    redis.call('ZADD', owner.leases, now + lease, request)
    -- Both outlive every lease in them, and go together.
    redis.call('PEXPIRE', owner.leases, lease + 60000)
    redis.call('PEXPIRE', owner.amounts, lease + 60000)
  end
  return fresh
end

local function give_back(group)
  for _, spec in ipairs(group) do
    if spec.kind == 'r' then
      if ARGV[10] == '1' then redis.call('ZREM', spec.key, request) end
    elseif spec.kind == 's' and leaves ~= 'k' then
      local expiry = leaves ~= 'a' and tonumber(redis.call('ZSCORE', spec.key, member) or nil)
      local unless = string.match(leaves, '^u(.*)$')
      local counted = expiry and expiry - member_ttl
      if leaves == 'a' or counted and unless and counted <= now - tonumber(unless)
        or counted and not unless and counted >= now - tonumber(leaves) then
        redis.call('ZREM', spec.key, member)
      end
    end
  end
  for _, owner in ipairs(group.owners) do
    local amount = redis.call('HGET', owner.amounts, request)
    if amount then
      redis.call('HDEL', owner.amounts, request)
      subtract(owner.amounts, 'sum', amount)
      redis.call('ZREM', owner.leases, request)
    end
  end
end

if mode == 'back' then
  give_back(caller)
  for _, group in ipairs(line) do give_back(group) end
  return {0, '', 0, 0}
end
if left then give_back(left) end
if mode ~= 'force' then
  local answer = obstacle(caller)
  if answer then return answer end
end

local bound = ARGV[7]
if bound == '?' then bound = string.sub(member, 1, 1) == 's' and redis.call('GET', binding) or '' end
local chosen, at = nil, 0
local function try(index)
  local answer = mode ~= 'force' and obstacle(line[index])
  if not answer then chosen, at = line[index], index end
  -- A counter that has to be seeded may have room.
  return answer and answer[1] == 2 and answer
end
if bound ~= '' then
  for index, group in ipairs(line) do
    if not chosen and group.provider == bound then
      local missing = try(index)
      if missing then return missing end
      group.asked = true
    end
  end
end
for index, group in ipairs(line) do
  if not chosen and not group.asked then
    local missing = try(index)
    if missing then return missing end
  end
end
if not chosen and #line > 0 and ARGV[8] == '1' then return {3} end
if mode == 'check' then return {0, '', 0, 0} end

local fresh = take(caller)
if chosen then fresh = take(chosen) end
return {0, bound, at, fresh}
