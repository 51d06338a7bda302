//! What trees of runs may use, in calls, tokens and money: whoever works for a run shares its
//! purse, whichever run of the tree asks, and no fan-out spends more than that.
//!
//! As with tenants' budgets a call's worst case is reserved before it is dispatched and
//! settled to what it used (I12). A purse is told of by a call or is the plan's for every
//! tree. It counts from the first call that it covers, since the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use seawall_model::{CallId, Cause, Code, Millis, RunId, Tenant, Tokens, Usage, limits};

use crate::admit::{No, RETRY_AFTER_MIN};
use crate::budget::{need, used};
use crate::call::{Call, Pause, State};
use crate::effect::Effect;
use crate::kernel::Kernel;
use crate::plan::{Meter, RunBudget};
use crate::slab::Slab;
use crate::view::MeterView;

/// Slots looked at for one that may go.
const SWEEP: usize = 64;
/// The meters of a purse, in the order of its figures.
const METERS: [Meter; 3] = [Meter::Tokens, Meter::Calls, Meter::Money];

/// What one run and all below it may use.
#[derive(Clone, Debug)]
struct Purse {
    run: RunId,
    tenant: Tenant,
    /// The run's name, where it was told.
    name: Option<Arc<str>>,
    /// What calls have said; it is only ever lowered.
    said: RunBudget,
    /// Was it the top of its tree? Then the plan's rule holds for it as well, and goes on
    /// doing so if a call hangs it below another.
    top: bool,
    spent: [u64; 3],
    reserved: [u64; 3],
    /// Calls that it covers.
    calls: u32,
    /// Calls set aside until others have settled.
    held: BTreeSet<CallId>,
    used: bool,
}

/// A call's part in a purse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    purse: u32,
    /// What is reserved for the attempt under way.
    reserved: [u64; 3],
}

/// Has a purse room for a call?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purses {
    /// Each of them has.
    Fit,
    /// This one will, once calls under way have settled.
    Wait(u32),
    /// This one has not, by this meter.
    Never(u32, Meter),
}

/// All purses, at most [`limits::RUN_BUDGETS_MAX`]; those not used lately leave first, and
/// none that covers a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trees {
    index: BTreeMap<RunId, u32>,
    purses: Slab<Purse>,
    /// Calls that may try again before the step ends.
    woken: BTreeSet<CallId>,
}

impl Purse {
    fn limit(&self, meter: Meter, rule: &RunBudget) -> Option<u64> {
        let (said, rule) = (self.said.of(meter), rule.of(meter).filter(|_| self.top));
        said.into_iter().chain(rule).min()
    }

    fn room(&self, at: u32, needs: [u64; 3], rule: &RunBudget) -> Purses {
        let mut room = Purses::Fit;
        for (place, meter) in METERS.into_iter().enumerate() {
            let Some(limit) = self.limit(meter, rule) else { continue };
            let sure = self.spent[place].saturating_add(needs[place]);
            let most = sure.saturating_add(self.reserved[place]);
            // A call under way counts however it ends; tokens and money may come back.
            if sure > limit || most > limit && meter == Meter::Calls {
                return Purses::Never(at, meter);
            }
            if most > limit {
                room = Purses::Wait(at);
            }
        }
        room
    }
}

impl Trees {
    /// Opens the purse of a run, if there is room.
    fn open(&mut self, run: RunId, tenant: &Tenant) -> Option<u32> {
        if let Some(at) = self.index.get(&run) {
            return Some(*at);
        }
        if self.purses.len() >= limits::RUN_BUDGETS_MAX {
            let old = self.purses.sweep(SWEEP, |purse| purse.calls == 0, |purse| &mut purse.used)?;
            let old = self.purses.remove(old)?;
            self.index.remove(&old.run);
        }
        let purse = Purse {
            run,
            tenant: tenant.clone(),
            name: None,
            said: RunBudget::default(),
            top: false,
            spent: [0; 3],
            reserved: [0; 3],
            calls: 0,
            held: BTreeSet::new(),
            used: true,
        };
        let at = self.purses.insert(purse);
        self.index.insert(run, at);
        Some(at)
    }

    /// A call says what its run and all below it may use: never more than was said before.
    pub(crate) fn bound(&mut self, run: RunId, tenant: &Tenant, name: &Arc<str>, budget: &RunBudget) {
        let Some(at) = self.open(run, tenant) else { return };
        let purse = &mut self.purses[at];
        if purse.tenant != *tenant {
            return;
        }
        purse.used = true;
        purse.name.get_or_insert_with(|| Arc::clone(name));
        purse.said = purse.said.least(budget);
    }

    /// The purses above a call's run, each of which now covers it. `None` if the plan wants
    /// one that there is no room for.
    fn join(&mut self, line: &[RunId], tenant: &Tenant, rule: &RunBudget) -> Option<Vec<Part>> {
        let top = line.last().filter(|_| rule.is_some());
        if let Some(top) = top {
            let at = self.open(*top, tenant)?;
            self.purses[at].top |= self.purses[at].tenant == *tenant;
        }
        let mut parts = Vec::new();
        for run in line {
            let Some(at) = self.index.get(run).copied() else { continue };
            let purse = &mut self.purses[at];
            if purse.tenant == *tenant {
                purse.used = true;
                purse.calls += 1;
                parts.push(Part { purse: at, reserved: [0; 3] });
            }
        }
        Some(parts)
    }

    /// The call is over.
    pub(crate) fn leave(&mut self, parts: &[Part]) {
        for part in parts {
            self.purses[part.purse].calls -= 1;
            self.wake(part.purse);
        }
    }

    /// Lets the oldest call that waits for a purse try again.
    fn wake(&mut self, purse: u32) {
        self.woken.extend(self.purses[purse].held.first());
    }

    /// A call waits for no purse any more.
    pub(crate) fn unhold(&mut self, call: CallId, parts: &[Part]) {
        for part in parts {
            self.purses[part.purse].held.remove(&call);
        }
    }

    fn room(&self, parts: &[Part], needs: [u64; 3], rule: &RunBudget) -> Purses {
        let mut room = Purses::Fit;
        for part in parts {
            match self.purses[part.purse].room(part.purse, needs, rule) {
                Purses::Fit => {}
                Purses::Wait(at) => room = Purses::Wait(at),
                never => return never,
            }
        }
        room
    }

    fn book(&mut self, parts: &mut [Part], needs: [u64; 3], rule: &RunBudget) {
        for part in parts {
            let purse = &mut self.purses[part.purse];
            part.reserved = needs;
            for (place, meter) in METERS.into_iter().enumerate() {
                purse.reserved[place] = purse.reserved[place].saturating_add(needs[place]);
                let sum = purse.spent[place].saturating_add(purse.reserved[place]);
                assert!(
                    purse.limit(meter, rule).is_none_or(|limit| sum <= limit),
                    "I12: no tree of runs has more spent and reserved than it may when a call is dispatched"
                );
            }
            self.wake(part.purse);
        }
    }

    /// An attempt is over: what was reserved for it is given back, what it used is spent.
    pub(crate) fn spend(&mut self, parts: &mut [Part], spent: [u64; 3]) {
        for part in parts {
            let purse = &mut self.purses[part.purse];
            let reserved = std::mem::take(&mut part.reserved);
            for place in 0..METERS.len() {
                purse.reserved[place] -= reserved[place];
                purse.spent[place] = purse.spent[place].saturating_add(spent[place]);
            }
            self.wake(part.purse);
        }
    }

    /// What is said of a purse that is spent: `run report#tokens/tree`.
    fn name(&self, purse: u32, meter: Meter) -> Arc<str> {
        let meter = match meter {
            Meter::Tokens => "tokens",
            Meter::Calls => "calls",
            Meter::Money => "usd",
        };
        let purse = &self.purses[purse];
        match &purse.name {
            Some(name) => format!("run {name}#{meter}/tree").into(),
            None => format!("run {:016x}#{meter}/tree", purse.run.0).into(),
        }
    }

    pub(crate) fn check<'a>(&self, calls: impl Iterator<Item = &'a Call>) {
        assert!(self.purses.len() <= limits::RUN_BUDGETS_MAX, "budgets of runs are bounded (I5)");
        assert_eq!(self.purses.len(), self.index.len(), "each budget of a run is found by its id");
        assert!(self.woken.is_empty(), "a step leaves nothing over");
        let mut sums = BTreeMap::<u32, (u32, [u64; 3], BTreeSet<CallId>)>::new();
        for call in calls {
            let waits = matches!(call.state, State::Paused(pause) if pause.cause == Cause::Budget);
            let held = |part: &Part| self.purses[part.purse].held.contains(&call.submit.call);
            assert_eq!(
                call.parts.iter().any(held),
                waits,
                "who waits for a budget of its run is known to it"
            );
            for part in &call.parts {
                let sum = sums.entry(part.purse).or_default();
                sum.0 += 1;
                sum.1.iter_mut().zip(part.reserved).for_each(|(sum, part)| *sum += part);
                sum.2.extend(held(part).then_some(call.submit.call));
            }
        }
        for (at, purse) in self.purses.iter() {
            let counted = (purse.calls, purse.reserved, purse.held.clone());
            assert_eq!(counted, sums.remove(&at).unwrap_or_default(), "a tree counts its calls");
        }
    }
}

/// The most that the next attempt of a call can take.
fn needs(call: &Call) -> [u64; 3] {
    METERS.map(|meter| match meter {
        // It was counted with its first attempt.
        Meter::Calls if call.attempts > 0 => 0,
        _ => need(meter, &call.price, Tokens(call.prompt_max()), Tokens(call.output_max)),
    })
}

impl Kernel {
    /// What a run and all below it may use and have used, where that is bounded; what is
    /// left counts the runs above it too.
    #[must_use]
    pub fn run_budget(&self, run: RunId) -> Vec<MeterView> {
        let (trees, rule) = (&self.trees, &self.guard_rule.tree);
        let Some(purse) = trees.index.get(&run).map(|at| &trees.purses[*at]) else { return Vec::new() };
        let above = self.kin.line(run).filter_map(|run| trees.index.get(&run));
        let above: Vec<&Purse> = above.map(|at| &trees.purses[*at]).collect();
        let left = |place: usize, meter| {
            let left = above.iter().filter_map(|purse| {
                let taken = purse.spent[place].saturating_add(purse.reserved[place]);
                Some(purse.limit(meter, rule)?.saturating_sub(taken))
            });
            left.min().unwrap_or(0)
        };
        let views = METERS.into_iter().enumerate().filter_map(|(place, meter)| {
            Some(MeterView {
                meter,
                limit: purse.limit(meter, rule)?,
                spent: purse.spent[place],
                reserved: purse.reserved[place],
                left: left(place, meter),
            })
        });
        views.collect()
    }

    /// Has the tree of this call's run room for it, now or later? If so it belongs to the
    /// purses above it from now on.
    pub(crate) fn join_trees(&mut self, call: &mut Call) -> Result<(), No> {
        let Some(run) = call.submit.run else { return Ok(()) };
        let rule = self.guard_rule.tree;
        if self.trees.index.is_empty() && !rule.is_some() {
            return Ok(());
        }
        let line: Vec<RunId> = self.kin.line(run).collect();
        let Some(parts) = self.trees.join(&line, &call.submit.tenant, &rule) else {
            return Err(No { retry_after: Some(RETRY_AFTER_MIN), ..No::plain(Code::QueueFull) });
        };
        call.parts = parts;
        if let Purses::Never(purse, meter) = self.trees.room(&call.parts, needs(call), &rule) {
            self.trees.leave(&call.parts);
            return Err(self.tree_spent(purse, meter));
        }
        Ok(())
    }

    /// The refusal of a call whose tree has too little left. No time brings it back.
    pub(crate) fn tree_spent(&self, purse: u32, meter: Meter) -> No {
        No { what: Some(self.trees.name(purse, meter)), ..No::plain(Code::AllowanceSpent) }
    }

    /// Is there room for the call in its trees?
    pub(crate) fn tree_room(&self, at: u32) -> Purses {
        let call = &self.calls[at];
        self.trees.room(&call.parts, needs(call), &self.guard_rule.tree)
    }

    /// Reserves what the call may use at most, where there is room for it.
    pub(crate) fn book_trees(&mut self, at: u32) {
        let call = &mut self.calls[at];
        let needs = needs(call);
        self.trees.book(&mut call.parts, needs, &self.guard_rule.tree);
    }

    /// Turns what an attempt had reserved into what it used.
    pub(crate) fn settle_trees(&mut self, at: u32, usage: &Usage) {
        let call = &mut self.calls[at];
        let (price, first) = (call.price, call.attempts == 1);
        self.trees.spend(&mut call.parts, METERS.map(|meter| used(meter, &price, usage, first)));
    }

    /// Sets a waiting call aside until others of its tree have settled, so that it does not
    /// stand before calls of others. It goes on counting among those who wait.
    pub(crate) fn hold_for_tree(&mut self, at: u32, purse: u32, out: &mut Vec<Effect>) {
        let Some(queued) = self.calls[at].queued().copied() else { return };
        self.withdraw(at);
        if queued.expires <= self.now {
            let name = &self.trees.purses[purse].name;
            let no = No {
                retry_after: Some(Millis(1_000)),
                cause: Some(Cause::Budget),
                what: name.clone(),
                ..No::plain(Code::QueueTimeout)
            };
            return self.refuse(at, no, out);
        }
        let call = &self.calls[at];
        self.engines[queued.engine].crowd.join(&call.submit.tenant, call.submit.call, call.submit.bytes.0);
        self.trees.purses[purse].held.insert(call.submit.call);
        let until = queued.expires.min(seawall_model::At(queued.latest.0.saturating_add(1)));
        let counted = Some(queued.engine);
        self.set_aside(at, Pause { since: self.now, until, cause: Cause::Budget, counted });
    }

    /// Lets calls that waited for their trees try again. False if there are none.
    pub(crate) fn wake_held(&mut self, out: &mut Vec<Effect>) -> bool {
        let woken = std::mem::take(&mut self.trees.woken);
        for id in &woken {
            if let Some(at) = self.index.get(id).copied()
                && matches!(self.calls[at].state, State::Paused(pause) if pause.cause == Cause::Budget)
            {
                self.go_on(at, out);
            }
        }
        !woken.is_empty()
    }
}
