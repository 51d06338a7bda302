//! Monitors and links in the world's own books: whoever is told of an end is told of one
//! that was, and whoever is linked to a run that failed does not end well.

use std::collections::{BTreeMap, BTreeSet};

use seawall_kernel::agents::Shard;
use seawall_model::durable::Standing;
use seawall_model::effect::Answer;
use seawall_model::journal::{Ending, Event};
use seawall_model::{Address, EffectId, RunKey};

/// Turns that a run may have before it hears of an end that a crash kept from it.
const LATE_TURNS_MAX: u32 = 1;

/// All ties, by committed records.
#[derive(Clone, Debug, Default)]
pub struct Bonds {
    /// Both runs of each link, the smaller first.
    links: BTreeSet<(RunKey, RunKey)>,
    /// Runs that are to fail, since one that they are linked to did; and once the process
    /// has died, their turns since.
    doomed: BTreeMap<RunKey, Option<u32>>,
    /// Agents that ever were out of service.
    quarantined: BTreeSet<Address>,
    /// Monitors that were told of an end.
    pub told: u64,
    /// Runs that failed with another.
    pub felled: u64,
}

fn pair(one: RunKey, other: RunKey) -> (RunKey, RunKey) {
    (one.min(other), one.max(other))
}

impl Bonds {
    /// A record, before it is folded into its shard.
    pub fn read(&mut self, agent: Option<&Address>, shard: &Shard, event: &Event) {
        match event {
            Event::Tied { tie } if tie.linked => {
                self.links.insert(pair(tie.run, tie.effect.run));
            }
            Event::Untied { run, effect } => {
                self.links.remove(&pair(*run, effect.run));
            }
            Event::Quarantined { .. } => {
                let Some(agent) = agent else { return };
                self.quarantined.insert(agent.clone());
                if let Some(run) = shard.agents.get(agent).and_then(|row| row.run) {
                    self.doom(run);
                }
            }
            // Between the end of one and that of the other the process died: the other may
            // have its turn before it hears of it.
            Event::Opened => {
                for turns in self.doomed.values_mut() {
                    *turns = Some(0);
                }
            }
            Event::Turned(turn) => self.turn(turn.run),
            _ => {}
        }
    }

    /// A run that is to fail has no turn, or one if the process died.
    fn turn(&mut self, run: RunKey) {
        let Some(turns) = self.doomed.get_mut(&run) else { return };
        let late = turns.take().is_some_and(|before| before < LATE_TURNS_MAX);
        assert!(late, "ties: {run} goes on, and one that it is linked to failed");
        *turns = Some(LATE_TURNS_MAX);
    }

    /// A run is over.
    pub fn end(&mut self, run: RunKey, ending: &Ending) {
        let doomed = self.doomed.remove(&run).is_some_and(|turns| turns.is_none());
        match ending {
            Ending::Done(_) => {
                assert!(!doomed, "ties: {run} ended well, and one that it is linked to failed");
            }
            Ending::Failed { why, .. } => {
                self.felled += u64::from(why.starts_with("it is linked to"));
                self.doom(run);
            }
            Ending::Cancelled { .. } => self.doom(run),
        }
    }

    fn doom(&mut self, run: RunKey) {
        let of = self.links.iter().filter(|(one, other)| *one == run || *other == run);
        let others: Vec<RunKey> = of.map(|(one, other)| if *one == run { *other } else { *one }).collect();
        for other in others {
            self.doomed.entry(other).or_default();
        }
    }

    /// A monitor of an agent is answered, before that is folded into its shard; `ended` is
    /// how a run ended.
    pub fn tell(
        &mut self,
        effect: EffectId,
        of: &Address,
        shard: &Shard,
        answer: &Answer,
        ended: impl Fn(RunKey) -> Option<&'static str>,
    ) {
        let Answer::Done(body) = answer else { return };
        let text = String::from_utf8_lossy(body.here().unwrap_or_default()).into_owned();
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":\""))?;
            rest.split('"').next()
        };
        let run = field("run").and_then(RunKey::parse);
        match (field("how"), run) {
            (Some("idle"), None) => {
                let works = shard
                    .agents
                    .get(of)
                    .is_some_and(|row| row.run.is_some() && row.standing != Standing::Quarantined);
                assert!(!works, "ties: {effect} was told that {of} works on nothing");
            }
            (Some("quarantined"), _) => {
                assert!(self.quarantined.contains(of), "ties: {of} never was out of service");
            }
            (how, Some(run)) => {
                assert!(ended(run) == how, "ties: {effect} was told that {run} is {how:?}");
            }
            _ => panic!("ties: {effect} was told {text}"),
        }
        self.told += 1;
    }

    /// What must hold when everything is over.
    pub fn close(&self, shards: &[Shard]) {
        for row in shards.iter().flat_map(|shard| shard.agents.values()) {
            assert!(row.ties.is_empty(), "ties: {} has {:?} when all is over", row.address, row.ties);
        }
        assert!(self.links.is_empty(), "ties: {:?} are linked when all is over", self.links);
    }
}
