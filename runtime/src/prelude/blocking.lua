-- Work on threads.

local native, _, ours = ...

local blame = ours.blame
local may_wait, promise_wait, promise_take = native.may_wait, native.promise_wait, native.promise_take

--- Makes a function that parks of `begin`, which starts work on a thread and answers a ticket.
function native.blocking(place, begin)
  return function(...)
    local ok, err = may_wait(place)
    if not ok then return nil, err end
    local ticket, why = blame(2, begin(...))
    if not ticket then return nil, why end
    ok, err = promise_wait(place, ticket)
    if not ok then return nil, err end
    return blame(1, promise_take(ticket))
  end
end
