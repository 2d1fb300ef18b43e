-- Shared by all functions. KEYS[1] is the prefix with its hash tag, as in `{tidemark}`; every key begins with it, so that all
-- are in one slot of a cluster. All checks, and all reads (a key of another type fails there), come before the first write:
-- Redis does not take back what a function that fails half-way has written.
local call = redis.call

local function key(...)
  return table.concat({ KEYS[1], ... }, ':')
end

-- The host knows another life of this Redis: its numbers of combinations may mean something else here.
local function is_another(token)
  return call('GET', key('token')) ~= token
end

local function number(text)
  return tonumber(text or '0') or 0
end

local function text(value)
  return string.format('%.0f', value)
end
