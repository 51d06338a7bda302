//! Budgets down the run tree: what a run uses or sets aside counts on itself and on every
//! run above it, so that delegation cannot multiply what there is (I12).
//!
//! A path is a run and all above it, the run itself first. What an effect may cost at most
//! is reserved on the whole path before it is done, where [`room`] finds that there is, and
//! replaced by what it used when it is answered. Plain arithmetic on rows, so that folding
//! the journal does it again to the same end.

use seawall_model::durable::RunRow;
use seawall_model::effect::Spend;
use seawall_model::{RunKey, limits};

/// What has no room: the run of the path that has none, and its meter.
pub(crate) type Short = (RunKey, &'static str);

/// Is there room for a cost on all of the path?
///
/// # Errors
/// The lowest run without room, and which of `tokens`, `money`, `calls` and `steps` it has
/// too little of. Sums that no longer fit their number are without room too, so that what
/// is reserved can always be given back.
pub(crate) fn room(path: &[&RunRow], cost: Spend) -> Result<(), Short> {
    for row in path {
        for (meter, cost, allowed, used, reserved) in meters(row, cost) {
            // What costs nothing is never refused, not even by a budget overdrawn by an
            // effect that cost more than it said.
            if cost == 0 {
                continue;
            }
            let sum = used.checked_add(reserved).and_then(|sum| sum.checked_add(cost));
            if sum.is_none_or(|sum| allowed.is_some_and(|allowed| sum > allowed)) {
                return Err((row.key, meter));
            }
        }
    }
    Ok(())
}

/// Is there room for one more child beside `more` others that the same turn begins?
///
/// # Errors
/// The lowest run without room, and whether it is `children` or `depth`.
pub(crate) fn room_for_child(path: &[&RunRow], more: usize) -> Result<(), Short> {
    let Some(parent) = path.first() else { return Ok(()) };
    let children_max = parent.allowance.children.unwrap_or(limits::CHILDREN_LIVE_MAX);
    if parent.children.len() + more >= children_max.min(limits::CHILDREN_LIVE_MAX) as usize {
        return Err((parent.key, "children"));
    }
    if parent.depth >= limits::TREE_DEPTH_MAX {
        return Err((parent.key, "depth"));
    }
    let deep = |row: &&&RunRow| {
        let below = parent.depth.saturating_sub(row.depth) + 1;
        row.allowance.depth.is_some_and(|depth| below > depth)
    };
    path.iter().find(deep).map_or(Ok(()), |row| Err((row.key, "depth")))
}

/// Sets a cost aside on one run of the path.
pub(crate) fn reserve(row: &mut RunRow, cost: Spend) {
    row.reserved = row.reserved.plus(cost);
}

/// Replaces what was set aside by what was used, on one run of the path.
pub(crate) fn settle(row: &mut RunRow, reserved: Spend, used: Spend) {
    row.reserved = row.reserved.minus(reserved);
    row.used = row.used.plus(used);
}

/// Name, cost, allowance, used and reserved of each meter.
fn meters(row: &RunRow, cost: Spend) -> [(&'static str, u64, Option<u64>, u64, u64); 4] {
    let (allowance, used, reserved) = (&row.allowance, &row.used, &row.reserved);
    [
        ("tokens", cost.tokens.0, allowance.tokens.map(|most| most.0), used.tokens.0, reserved.tokens.0),
        ("money", cost.money.0, allowance.money.map(|most| most.0), used.money.0, reserved.money.0),
        ("calls", cost.calls, allowance.calls, used.calls, reserved.calls),
        ("steps", cost.steps, allowance.steps, used.steps, reserved.steps),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use seawall_model::durable::RunState;
    use seawall_model::effect::Allowance;
    use seawall_model::{Address, At, MicroUsd, Payload, Tokens};

    use super::*;

    fn run(key: u64, depth: u16, allowance: Allowance) -> RunRow {
        RunRow {
            key: RunKey(key),
            agent: Address::parse("acme/worker/1").expect("valid"),
            parent: None,
            root: RunKey(1),
            depth,
            version: "1".into(),
            task: Payload::empty(),
            allowance,
            used: Spend::default(),
            reserved: Spend::default(),
            state: RunState::Active,
            began: At(1_000_000),
            ended: None,
            turns: 0,
            effects: 0,
            children: Vec::new(),
            restarts: Vec::new(),
            hop: 0,
            seq: 0,
            by: "test".into(),
            caller: None,
            fork: None,
        }
    }

    fn tokens(amount: u64) -> Spend {
        Spend { tokens: Tokens(amount), ..Spend::default() }
    }

    fn allow(amount: u64) -> Allowance {
        Allowance { tokens: Some(Tokens(amount)), ..Allowance::default() }
    }

    #[test]
    fn every_run_above_must_have_room() {
        let mut root = run(1, 0, allow(100));
        let mut child = run(2, 1, allow(1_000));
        assert_eq!(room(&[&child, &root], tokens(101)), Err((RunKey(1), "tokens")));
        assert_eq!(room(&[&child, &root], tokens(1_001)), Err((RunKey(2), "tokens")), "the lowest is named");
        assert_eq!(room(&[&child, &root], tokens(100)), Ok(()));
        reserve(&mut child, tokens(60));
        reserve(&mut root, tokens(60));
        assert_eq!(room(&[&child, &root], tokens(41)), Err((RunKey(1), "tokens")));
        settle(&mut child, tokens(60), tokens(10));
        settle(&mut root, tokens(60), tokens(10));
        assert_eq!((root.used, root.reserved), (tokens(10), Spend::default()));
        reserve(&mut child, tokens(90));
        reserve(&mut root, tokens(90));
        settle(&mut child, tokens(90), Spend::default());
        settle(&mut root, tokens(90), Spend::default());
        assert_eq!(room(&[&child, &root], tokens(90)), Ok(()));
    }

    #[test]
    fn each_meter_is_named_and_sums_that_do_not_fit_have_no_room() {
        let one =
            Allowance { money: Some(MicroUsd(1)), calls: Some(1), steps: Some(1), ..Allowance::default() };
        let mut row = run(7, 0, one);
        let short = |row: &RunRow, cost| room(&[row], cost).map_err(|(_, meter)| meter);
        assert_eq!(short(&row, Spend { money: MicroUsd(2), ..Spend::default() }), Err("money"));
        assert_eq!(short(&row, Spend { calls: 2, ..Spend::default() }), Err("calls"));
        assert_eq!(short(&row, Spend { steps: 2, ..Spend::default() }), Err("steps"));
        reserve(&mut row, tokens(u64::MAX - 1));
        assert_eq!(short(&row, tokens(1)), Ok(()));
        assert_eq!(short(&row, tokens(2)), Err("tokens"));
        // Overdrawn by an effect that cost more than it said: what is free still goes on.
        settle(&mut row, tokens(5), Spend { calls: 9, ..Spend::default() });
        assert_eq!(short(&row, Spend { calls: 1, ..Spend::default() }), Err("calls"));
        assert_eq!(short(&row, Spend { steps: 1, ..Spend::default() }), Ok(()));
    }

    #[test]
    fn children_are_counted_and_depth_is_inherited() {
        let deep = Allowance { depth: Some(2), ..Allowance::default() };
        let root = run(1, 0, deep);
        let child = run(2, 1, Allowance::default());
        let grandchild = run(3, 2, Allowance::default());
        assert_eq!(room_for_child(&[&root], 0), Ok(()));
        assert_eq!(room_for_child(&[&child, &root], 0), Ok(()));
        assert_eq!(room_for_child(&[&grandchild, &child, &root], 0), Err((RunKey(1), "depth")));
        let mut busy = run(4, 0, Allowance { children: Some(2), ..Allowance::default() });
        busy.children = vec![RunKey(8)];
        assert_eq!(room_for_child(&[&busy], 0), Ok(()));
        busy.children.push(RunKey(9));
        assert_eq!(room_for_child(&[&busy], 0), Err((RunKey(4), "children")));
        let deepest = run(5, limits::TREE_DEPTH_MAX, Allowance::default());
        assert_eq!(room_for_child(&[&deepest], 0), Err((RunKey(5), "depth")));
        assert_eq!(room_for_child(&[], 0), Ok(()));
    }

    proptest! {
        /// A tree of runs that reserve, settle below their maxima and release in any order.
        #[test]
        fn no_allowance_is_ever_exceeded(
            allowances in proptest::collection::vec(proptest::option::of(1_u64..500), 7),
            steps in proptest::collection::vec((0_usize..7, 0_u64..120, 0_u64..=100, any::<bool>()), 1..200),
        ) {
            let make = |(at, most): (usize, &Option<u64>)| {
                let allowance = Allowance { tokens: most.map(Tokens), ..Allowance::default() };
                run(at as u64, 0, allowance)
            };
            let mut rows: Vec<RunRow> = allowances.iter().enumerate().map(make).collect();
            let mut open: Vec<(usize, u64)> = Vec::new();
            for (at, cost, percent, settles) in steps {
                // A binary heap's shape: the parent of n is (n - 1) / 2.
                let up = |mut at: usize| { let mut path = vec![at]; while at > 0 { at = (at - 1) / 2; path.push(at); } path };
                if settles && !open.is_empty() {
                    let (at, cost) = open.remove(cost as usize % open.len());
                    for at in up(at) {
                        settle(&mut rows[at], tokens(cost), tokens(cost * percent / 100));
                    }
                } else {
                    let path: Vec<&RunRow> = up(at).into_iter().map(|at| &rows[at]).collect();
                    if room(&path, tokens(cost)).is_ok() {
                        for at in up(at) {
                            reserve(&mut rows[at], tokens(cost));
                        }
                        open.push((at, cost));
                    }
                }
                for row in &rows {
                    let taken = row.used.tokens + row.reserved.tokens;
                    prop_assert!(row.allowance.tokens.is_none_or(|most| taken <= most));
                }
            }
            for (at, cost) in open {
                let mut at = at;
                loop {
                    settle(&mut rows[at], tokens(cost), Spend::default());
                    if at == 0 { break; }
                    at = (at - 1) / 2;
                }
            }
            prop_assert!(rows.iter().all(|row| row.reserved == Spend::default()));
        }
    }
}
