-- In front of scripts that only the daemon that has the journal may run: the last of ARGV is its epoch ('0': no journal yet).

local current = redis.call('GET', P .. 'epoch') or '0'
if current ~= table.remove(ARGV) then return redis.error_reply('FENCED by epoch ' .. current) end

