//! How many agents there are, suspended ones included, what their runs may use and used,
//! and what operators were told of: for metrics, which are read without asking the disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use seawall_kernel::agents::Tally;
use seawall_kernel::agents::effect::Notice;
use seawall_model::durable::{RunRow, Standing};
use seawall_model::{RunKey, limits};
use seawall_store::Error;
use seawall_store::journal::{Need, Reader, Whose};

use crate::app::App;

use super::desk::Desk;

/// How often all agents are counted: that looks at every row.
const EVERY: Duration = Duration::from_secs(15);
/// How often those who wait are: that looks into an index alone, some milliseconds with
/// 100,000 of them.
const WAITS_EVERY: Duration = Duration::from_secs(2);

/// What operators were told of since the start.
#[derive(Debug, Default)]
pub struct Told([AtomicU64; 5]);

impl Told {
    /// What is counted, by the name in metrics.
    pub const KINDS: [&'static str; 5] = ["guard", "quarantine", "doubt", "approval", "dead_letter"];

    /// Counts one.
    pub fn count(&self, notice: &Notice) {
        let kind = match notice {
            Notice::Rung { .. } => 0,
            Notice::Quarantined { .. } => 1,
            Notice::Doubt { .. } => 2,
            Notice::Asked { .. } => 3,
            Notice::Letter { .. } => 4,
        };
        self.0[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, in the order of [`Self::KINDS`].
    #[must_use]
    pub fn counts(&self) -> [u64; 5] {
        std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

/// How many agents there are, by how they stand, and what people are wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Without a task.
    pub idle: u64,
    /// With one.
    pub active: u64,
    /// Out of service.
    pub quarantined: u64,
    /// Whose only task is over.
    pub done: u64,
    /// Effects in doubt.
    pub doubts: usize,
    /// Effects that ask for approval.
    pub approvals: usize,
    /// Questions without an answer.
    pub questions: usize,
    /// Those that wait and are rows alone.
    pub away: Waits,
    /// Budgets of live trees of runs, by root tenant: those with the most such trees, at most
    /// [`limits::TENANT_LABELS_MAX`].
    pub budgets: Vec<(Arc<str>, Budgets)>,
}

/// How many agents wait, by the cause that is nearest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits(pub BTreeMap<String, u64>);

impl Waits {
    /// Those of a tenant and all below it that are not in memory: of all that wait on disk,
    /// without those that are counted in memory.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn away(reader: &Reader, desk: &Desk, tenant: Option<&str>) -> Result<(Self, Tally), Error> {
        // Asked first: one that leaves memory between the two was on disk before.
        let mut away: BTreeMap<String, u64> = reader.causes(tenant)?.into_iter().collect();
        let tally = desk.tally(tenant);
        for (cause, count) in &tally.by_row {
            if let Some(all) = away.get_mut(*cause) {
                *all = all.saturating_sub(*count);
            }
        }
        away.retain(|_, count| *count > 0);
        Ok((Self(away), tally))
    }

    /// With those in memory.
    #[must_use]
    pub fn with(mut self, here: &BTreeMap<&'static str, u64>) -> Self {
        for (cause, count) in here {
            *self.0.entry((*cause).to_owned()).or_default() += count;
        }
        self
    }
}

/// What the live trees of runs of a tenant may use, by meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Runs on top of a tree that are not over.
    pub trees: u64,
    /// Each of [`Budgets::METERS`].
    pub meters: [Meter; 4],
}

/// One meter of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Set aside for what is under way.
    pub reserved: u64,
    /// Used.
    pub used: u64,
    /// What may be used in all, by those that have a limit.
    pub allowed: u64,
}

impl Budgets {
    /// The names of the meters: tokens, millionths of a dollar, calls, turns.
    pub const METERS: [&'static str; 4] = ["tokens", "money", "calls", "steps"];

    fn add(&mut self, run: &RunRow) {
        let (reserved, used, allowed) = (&run.reserved, &run.used, &run.allowance);
        let each = [
            (reserved.tokens.0, used.tokens.0, allowed.tokens.map(|most| most.0)),
            (reserved.money.0, used.money.0, allowed.money.map(|most| most.0)),
            (reserved.calls, used.calls, allowed.calls),
            (reserved.steps, used.steps, allowed.steps),
        ];
        self.trees += 1;
        for (meter, (reserved, used, allowed)) in self.meters.iter_mut().zip(each) {
            meter.reserved = meter.reserved.saturating_add(reserved);
            meter.used = meter.used.saturating_add(used);
            meter.allowed = meter.allowed.saturating_add(allowed.unwrap_or(0));
        }
    }
}

/// Budgets of all live trees, by root tenant; the tenants with the most trees first.
fn budgets(reader: &Reader) -> Result<Vec<(Arc<str>, Budgets)>, Error> {
    let mut sums: BTreeMap<Arc<str>, Budgets> = BTreeMap::new();
    for shard in reader.shards()? {
        let mut after = RunKey::default();
        loop {
            let page = reader.roots_alive(shard.shard, after, limits::JOURNAL_PAGE_ROWS)?;
            for run in &page {
                let root = run.agent.tenant.prefixes().next().unwrap_or_default();
                match sums.get_mut(root) {
                    Some(sum) => sum.add(run),
                    None => sums.entry(root.into()).or_default().add(run),
                }
            }
            match page.last() {
                Some(last) if page.len() == limits::JOURNAL_PAGE_ROWS => after = last.key,
                _ => break,
            }
        }
    }
    let mut sums: Vec<(Arc<str>, Budgets)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.trees));
    sums.truncate(limits::TENANT_LABELS_MAX);
    Ok(sums)
}

impl Census {
    /// Counts all agents.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn take(reader: &Reader) -> Result<Self, Error> {
        let all = Whose::default();
        let wanted = |need| Ok::<_, Error>(reader.wanted(need, all, 0, limits::ROWS_MAX)?.wanted.len());
        let mut census = Self {
            doubts: wanted(Need::Doubt)?,
            approvals: wanted(Need::Approval)?,
            questions: wanted(Need::Promise)?,
            budgets: budgets(reader)?,
            ..Self::default()
        };
        for (_, standing, count) in reader.standings(None)? {
            match standing {
                Standing::Idle => census.idle += count,
                Standing::Active => census.active += count,
                Standing::Quarantined => census.quarantined += count,
                Standing::Done => census.done += count,
            }
        }
        Ok(census)
    }
}

/// Counts all agents now and then. Runs for ever.
pub async fn keep(app: Arc<App>) {
    let mut look = tokio::time::interval(WAITS_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut whole = tokio::time::Instant::now();
    while let Some(runtime) = app.agents.as_ref() {
        let now = look.tick().await;
        let census = || runtime.census.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= whole {
            whole = now + EVERY;
            if let Ok(taken) = runtime.read(Census::take).await {
                let mut kept = census();
                let away = std::mem::take(&mut kept.away);
                *kept = Census { away, ..taken };
            }
        }
        let desk = runtime.desk.clone();
        if let Ok((away, _)) = runtime.read(move |reader| Waits::away(reader, &desk, None)).await {
            census().away = away;
        }
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::durable::{Row, RunState};
    use seawall_model::effect::{Allowance, EffectId, Spend};
    use seawall_model::{Address, At, Payload, Tokens};
    use seawall_store::journal::Journal;

    use super::*;

    fn run(number: u64, agent: &str, tokens: [u64; 2], allowed: Option<u64>) -> RunRow {
        let key = RunKey::new(0, number);
        let [reserved, used] =
            tokens.map(|tokens| Spend { tokens: Tokens(tokens), calls: 1, ..Spend::default() });
        RunRow {
            key,
            agent: Address::parse(agent).expect("valid"),
            parent: None,
            root: key,
            depth: 0,
            version: "1".into(),
            task: Payload::empty(),
            allowance: Allowance { tokens: allowed.map(Tokens), ..Allowance::default() },
            used,
            reserved,
            state: RunState::Active,
            began: At(1),
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

    #[test]
    fn budgets_are_of_live_trees_by_root_tenant() {
        let mut journal = Journal::in_memory().expect("opens");
        journal.open_shards(1).expect("opened");
        let below = RunRow {
            parent: Some(EffectId { run: RunKey::new(0, 2), number: 1 }),
            ..run(4, "acme/b/helper/1", [9, 9], None)
        };
        let over = RunRow { ended: Some(At(2)), ..run(5, "acme/b/clerk/2", [9, 9], None) };
        let rows = [
            run(1, "zed/clerk/1", [1, 2], Some(10)),
            run(2, "acme/b/clerk/1", [3, 4], Some(100)),
            run(3, "acme/c/clerk/1", [5, 6], None),
            below,
            over,
        ];
        journal.append(&[], &rows.map(|row| Row::Run(Box::new(row)))).expect("appended");
        let census = Census::take(journal.reader()).expect("read");
        let [(acme, first), (zed, second)] = &census.budgets[..] else { panic!("{:?}", census.budgets) };
        assert_eq!((&**acme, first.trees, &**zed, second.trees), ("acme", 2, "zed", 1));
        assert_eq!(first.meters[0], Meter { reserved: 8, used: 10, allowed: 100 });
        assert_eq!(first.meters[2], Meter { reserved: 2, used: 2, allowed: 0 });
        assert_eq!(second.meters[0], Meter { reserved: 1, used: 2, allowed: 10 });
    }
}
