//! How Lua's collector goes about its work: by generations while the heap is small, in small steps when it is large.
//!
//! Most of what a script allocates is garbage when the next piece of network data comes. A generational collector finds
//! it without walking the rest, and while it is still in the processor's cache. But now and then it walks the whole heap
//! at once, and it walks every coroutine each time: with megabytes of them that is a pause which everybody notices. The
//! incremental one of Lua 5.4 takes as long a pause with what it has set by default: a step goes through 100 values for
//! each 16 bytes that were allocated, so all of a cycle falls within some 64 KiB.

use std::cell::Cell;

use mlua::{
    Lua,
    state::{GcGenParams, GcIncParams, GcMode},
};

/// Bytes of heap above which it is collected in steps. A whole collection takes some 10 ms then.
const STEPS_FROM: usize = 8 << 20;
/// Bytes of heap below which it is collected by generations again. Less than a collector in steps leaves, which lets the
/// heap double: or the mode would change with each cycle.
const GENERATIONS_FROM: usize = 3 << 20;

/// Percent to which the heap grows before a cycle of steps begins: Lua's default. Each cycle walks all coroutines.
const PAUSE: i32 = 200;
/// Values to go through for each 16 bytes that are allocated. A cycle ends before the heap has grown by a tenth.
const STEP_MULTIPLIER: i32 = 8;
/// Logarithm of the bytes that are allocated from one step to the next: 4 KiB. A step takes less than a millisecond.
const STEP_SIZE: i32 = 12;

/// The mode of the collector of one state.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    mode: Cell<Mode>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Somebody else has chosen: the script by `collectgarbage`, or who embeds the runtime.
    #[default]
    Others,
    Generations,
    Steps,
}

impl Collector {
    /// Begins with generations.
    pub(crate) fn begin(&self, lua: &Lua) {
        lua.gc_set_mode(generations());
        self.mode.set(Mode::Generations);
    }

    /// Leaves the mode to somebody else, for good.
    pub(crate) fn leave(&self) {
        self.mode.set(Mode::Others);
    }

    /// Changes the mode when the heap has become large or small. Costs a look at a number.
    pub(crate) fn adapt(&self, lua: &Lua) {
        let used = lua.used_memory();
        match self.mode.get() {
            Mode::Generations if used > STEPS_FROM => self.change(lua, steps(), Mode::Steps),
            Mode::Steps if used < GENERATIONS_FROM => self.change(lua, generations(), Mode::Generations),
            _ => {}
        }
    }

    fn change(&self, lua: &Lua, mode: GcMode, name: Mode) {
        let was = lua.gc_set_mode(mode);
        let expected = match was {
            GcMode::Generational(_) => Mode::Generations,
            _ => Mode::Steps,
        };
        if expected == self.mode.get() {
            self.mode.set(name);
        } else {
            lua.gc_set_mode(was);
            self.leave();
        }
    }
}

fn generations() -> GcMode {
    GcMode::Generational(GcGenParams::default())
}

fn steps() -> GcMode {
    GcMode::Incremental(GcIncParams::default().pause(PAUSE).step_multiplier(STEP_MULTIPLIER).step_size(STEP_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state whose collector has begun, and what fills its heap.
    fn state() -> (Lua, Collector) {
        let (lua, collector) = (Lua::new(), Collector::default());
        collector.begin(&lua);
        (lua, collector)
    }

    fn grow(lua: &Lua) {
        lua.load("held = {} for i = 1, 100000 do held[i] = { i, tostring(i) } end").exec().unwrap();
        assert!(lua.used_memory() > STEPS_FROM);
    }

    fn shrink(lua: &Lua) {
        lua.load("held = nil collectgarbage()").exec().unwrap();
        assert!(lua.used_memory() < GENERATIONS_FROM);
    }

    #[test]
    fn a_small_heap_is_collected_by_generations_and_a_large_one_in_steps() {
        let (lua, collector) = state();
        collector.adapt(&lua);
        assert_eq!(collector.mode.get(), Mode::Generations);
        grow(&lua);
        collector.adapt(&lua);
        assert_eq!(collector.mode.get(), Mode::Steps);
        shrink(&lua);
        collector.adapt(&lua);
        assert_eq!(collector.mode.get(), Mode::Generations);
        assert!(matches!(lua.gc_set_mode(generations()), GcMode::Generational(_)));
    }

    #[test]
    fn a_mode_that_who_embeds_the_runtime_has_set_stays() {
        let (lua, collector) = state();
        lua.gc_set_mode(GcMode::Incremental(GcIncParams::default()));
        grow(&lua);
        collector.adapt(&lua);
        shrink(&lua);
        collector.adapt(&lua);
        assert!(matches!(lua.gc_set_mode(generations()), GcMode::Incremental(_)));
    }
}
