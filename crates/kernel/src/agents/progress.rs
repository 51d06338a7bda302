//! The progress guard: is an agent getting anywhere?
//!
//! Looked at after each turn, by four rules. (1) The same work is asked for again although
//! it was answered the same so and so often. (2) The same messages go to and fro with
//! nothing else between, or a chain of messages is too long. (3) Nothing changes for so many
//! turns. (4) What is spent without a result is spent in such turns, and told by (3).
//!
//! An offence makes the agent climb one rung: it is told; it rests, longer each time; it
//! waits for a human; it is taken out of service. New work that is answered brings it down
//! again. Models always have something new to say, so that nothing they say counts as news.
//!
//! Honest patterns that look alike are told apart so: where time passed between (a timer
//! rang), asking again is polling, which has a much larger bound; where new work was
//! answered, or known work otherwise than before, everything before it is forgiven; what is
//! asked for in one turn counts once; and a message that no message led to begins a new
//! conversation. So an agent that learns something each round is never stopped here: its
//! allowance of turns does that.

use std::sync::Arc;

use seawall_model::durable::{Progress, Rung, Twin};
use seawall_model::{Millis, limits};

/// First rest; it doubles with each.
const REST: Millis = Millis(1_000);
/// So often it rests before a human is asked: 1 s, 2 s, 4 s.
const RESTS_MAX: u32 = 3;

/// What counts as no progress. Zero turns a rule off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardRule {
    /// The same work may be answered the same so often; asking once more is an offence.
    pub repeats: u32,
    /// So often where time lies between.
    pub polls: u32,
    /// So many cycles of the same messages are a loop, and stopped at once.
    pub cycles: u32,
    /// Messages that may lead to one another; a longer chain is cut.
    pub hops: u16,
    /// Turns in a row that may change nothing.
    pub still: u32,
}

impl Default for GuardRule {
    fn default() -> Self {
        Self { repeats: 3, polls: 100, cycles: 3, hops: 16, still: 8 }
    }
}

/// Work that a turn asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// [`seawall_model::effect::Work::kind`].
    pub(crate) kind: &'static str,
    /// Equal for equal work; 0 is like nothing else.
    pub(crate) twin: u64,
}

/// An answer that a turn saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// [`seawall_model::effect::Work::kind`].
    pub(crate) kind: &'static str,
    /// The work's.
    pub(crate) twin: u64,
    /// Digest of the answer, refusals and failures included.
    pub(crate) answer: u64,
}

/// A message that a turn saw or sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    /// Digest of the other's address.
    pub(crate) peer: u64,
    /// Digest of what it says.
    pub(crate) body: u64,
    /// How many messages led to it; of no matter for those sent.
    pub(crate) hop: u16,
}

/// A turn, as far as the guard goes by it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen<'a> {
    /// Answers that it saw.
    pub(crate) heard: &'a [Heard],
    /// Messages that it saw.
    pub(crate) mail: &'a [Letter],
    /// Work that it asks for.
    pub(crate) asked: &'a [Asked],
    /// Messages that it sends.
    pub(crate) sent: &'a [Letter],
    /// What [`Judgement::hop`] was after the turn before.
    pub(crate) hop: u16,
    /// Did its state change, other than by what it saw and said, or does it end?
    pub(crate) changed: bool,
}

impl Letter {
    /// A digest of peer, content and direction; those sent are odd.
    fn key(&self, sent: bool) -> u64 {
        let mixed = (self.peer ^ self.body.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ self.body ^ (mixed >> 29)) & !1) | u64::from(sent)
    }
}

/// What a turn did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offence {
    /// The same work, answered the same.
    Repeats,
    /// The same messages to and fro.
    Cycle,
    /// Too long a chain of messages.
    Hops,
    /// Nothing changes.
    Still,
}

impl Offence {
    /// The name in metrics and the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Repeats => "repeats",
            Self::Cycle => "cycle",
            Self::Hops => "hops",
            Self::Still => "still",
        }
    }
}

/// What the guard makes of a turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// What it did wrong, if anything: only then the rung is to be acted upon.
    pub(crate) offence: Option<Offence>,
    /// The rung that it stands on now.
    pub(crate) rung: Rung,
    /// What the agent is told.
    pub(crate) note: Option<Arc<str>>,
    /// So long it rests.
    pub(crate) rests: Millis,
    /// What the messages of this turn carry as their hop: one more than those that led to
    /// it, and 0 where time did.
    pub(crate) hop: u16,
}

/// Is a message with this hop at the end of too long a chain? It is not delivered.
pub(crate) fn too_far(hop: u16, rule: &GuardRule) -> bool {
    rule.hops > 0 && hop > rule.hops
}

/// What answers bring, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    /// Nothing that was not known.
    None,
    /// Time passed: what is asked for again is polled.
    Time,
    /// Known work was answered otherwise: what lies before it is forgiven.
    Other,
    /// New work was answered: likewise, and the agent is one rung down.
    New,
}

/// Judges a turn, and remembers of it what matters for the next.
pub(crate) fn after_turn(progress: &mut Progress, rule: &GuardRule, seen: &Seen<'_>) -> Judgement {
    let news = hear(progress, seen.heard);
    let met = read(progress, seen.mail);
    let asked = ask(progress, rule, seen.asked);
    let cycles = send(progress, seen.sent);
    let moved = seen.changed || news > News::None || met || asked.new;
    progress.still = if moved { 0 } else { progress.still.saturating_add(1) };

    let hop = hop_after(seen);
    let offence = if rule.cycles > 0 && cycles >= rule.cycles {
        Some((Offence::Cycle, cycles))
    } else if too_far(hop, rule) && !seen.sent.is_empty() {
        Some((Offence::Hops, u32::from(hop)))
    } else if let Some(count) = asked.again {
        Some((Offence::Repeats, count))
    } else if rule.still > 0 && progress.still >= rule.still {
        Some((Offence::Still, progress.still))
    } else {
        None
    };
    match offence {
        Some((offence, count)) => Judgement { hop, ..climb(progress, offence, count) },
        None => {
            if news == News::New {
                descend(progress);
            }
            Judgement { rung: progress.rung, hop, ..Judgement::default() }
        }
    }
}

/// The latest messages led to this turn; without any, those that led to the last did,
/// unless time did.
fn hop_after(seen: &Seen<'_>) -> u16 {
    match seen.mail.iter().map(|letter| letter.hop).max() {
        Some(hop) => hop.saturating_add(1),
        None if seen.heard.iter().any(|heard| heard.kind == "timer") => 0,
        None => seen.hop,
    }
}

/// A human let the agent go on: what it did is known and no longer counted, and the next
/// offence takes it out of service unless it has done something new by then.
pub(crate) fn resume(progress: &mut Progress) {
    for twin in &mut progress.twins {
        (twin.count, twin.quick) = (0, 0);
    }
    progress.letters.clear();
    progress.still = 0;
    progress.rung = Rung::Cooled;
    progress.rests = RESTS_MAX + 1;
}

/// Work of which asking again for the same is worth nothing. Messages have rules of their
/// own; a lease that is taken each time, and whoever waits for time or a value, is not busy.
fn guarded(kind: &str) -> bool {
    matches!(kind, "model" | "tool" | "child" | "get" | "put" | "promise")
}

/// Takes in the answers of a turn, and forgives what they forgive.
fn hear(progress: &mut Progress, heard: &[Heard]) -> News {
    let mut news = News::None;
    for answer in heard {
        let brings = hear_one(progress, *answer);
        for twin in &mut progress.twins {
            match brings {
                News::None => break,
                News::Time => twin.quick = 0,
                _ if twin.work == answer.twin => {}
                News::Other | News::New => (twin.count, twin.quick) = (twin.count.min(1), twin.quick.min(1)),
            }
        }
        news = news.max(brings);
    }
    if news > News::None {
        progress.letters.clear();
    }
    news
}

fn hear_one(progress: &mut Progress, heard: Heard) -> News {
    if heard.kind == "timer" {
        return News::Time;
    }
    if !guarded(heard.kind) {
        return News::None;
    }
    // Zero is no answer yet.
    let answer = heard.answer.max(1);
    let mut known = false;
    if let Some(twin) = progress.twins.iter_mut().find(|twin| heard.twin != 0 && twin.work == heard.twin) {
        if twin.answer == answer {
            return News::None;
        }
        known = twin.answer != 0;
        (twin.answer, twin.count, twin.quick) = (answer, 1, 1);
    }
    match (heard.kind, known) {
        ("model", _) => News::None,
        (_, true) => News::Other,
        (_, false) => News::New,
    }
}

/// What a turn asks for.
struct Asking {
    /// Something new?
    new: bool,
    /// Something that was answered the same so often.
    again: Option<u32>,
}

/// Takes in the work that a turn asks for; the same work asked for at once counts once.
fn ask(progress: &mut Progress, rule: &GuardRule, asked: &[Asked]) -> Asking {
    let mut asking = Asking { new: false, again: None };
    let mut done: Vec<u64> = Vec::new();
    for Asked { kind, twin: work } in asked.iter().copied() {
        if !guarded(kind) || done.contains(&work) {
            continue;
        }
        if work == 0 {
            asking.new |= kind != "model";
            continue;
        }
        // More than are remembered need not be compared.
        if done.len() < limits::TWINS_MAX {
            done.push(work);
        }
        let Some(known) = progress.twins.iter().position(|twin| twin.work == work) else {
            asking.new |= kind != "model";
            remember(progress, Twin { work, answer: 0, count: 1, quick: 1 });
            continue;
        };
        let mut twin = progress.twins.remove(known);
        if twin.answer != 0 {
            twin.count = twin.count.saturating_add(1);
            twin.quick = twin.quick.saturating_add(1);
            // The first time it was asked for, nobody could know the answer.
            let times = twin.count - 1;
            let quick = rule.repeats > 0 && twin.quick > rule.repeats;
            let slow = rule.polls > 0 && times >= rule.polls;
            if quick || slow {
                asking.again = asking.again.max(Some(times));
            }
        }
        remember(progress, twin);
    }
    asking
}

/// Keeps a twin as the newest; the one not asked for the longest leaves.
fn remember(progress: &mut Progress, twin: Twin) {
    if progress.twins.len() >= limits::TWINS_MAX {
        progress.twins.remove(0);
    }
    progress.twins.push(twin);
}

/// Takes in the messages that a turn saw. Is one of them new?
fn read(progress: &mut Progress, mail: &[Letter]) -> bool {
    let begins = mail.iter().any(|letter| letter.hop == 0);
    if begins {
        progress.letters.clear();
    }
    let mut met = false;
    for letter in mail {
        met |= tally(progress, letter.key(false)) == 1;
    }
    if met {
        // Something new was said: what was said before may be said once more.
        for (_, count) in &mut progress.letters {
            *count = (*count).min(1);
        }
    }
    met || begins
}

/// Takes in the messages that a turn sends: cycles of the same to and fro so far. A message
/// that nobody answers with the same, whoever it is for, is in no cycle.
fn send(progress: &mut Progress, sent: &[Letter]) -> u32 {
    let mut most = 0;
    let mut done: Vec<u64> = Vec::new();
    for key in sent.iter().map(|letter| letter.key(true)) {
        if done.contains(&key) || done.len() >= limits::GUARD_LETTERS_MAX {
            continue;
        }
        done.push(key);
        let count = tally(progress, key);
        let came = progress.letters.iter().filter(|(key, _)| *key & 1 == 0).map(|(_, count)| *count).max();
        most = most.max(count.min(came.map_or(0, |came| came.saturating_add(1))));
    }
    most
}

/// How often this message has been exchanged, now included.
fn tally(progress: &mut Progress, key: u64) -> u32 {
    let known = progress.letters.iter().position(|(known, _)| *known == key);
    let count = known.map_or(0, |at| progress.letters.remove(at).1).saturating_add(1);
    if progress.letters.len() >= limits::GUARD_LETTERS_MAX {
        progress.letters.remove(0);
    }
    progress.letters.push((key, count));
    count
}

/// One rung up; a loop of messages is stopped at once, since each of its rounds costs
/// somebody else as well.
fn climb(progress: &mut Progress, offence: Offence, count: u32) -> Judgement {
    let next = match progress.rung {
        Rung::Paused | Rung::Quarantined => Rung::Quarantined,
        Rung::Cooled if progress.rests > RESTS_MAX => Rung::Quarantined,
        _ if offence == Offence::Cycle => Rung::Paused,
        Rung::Cooled if progress.rests == RESTS_MAX => Rung::Paused,
        Rung::Well => Rung::Warned,
        Rung::Warned | Rung::Cooled => Rung::Cooled,
    };
    progress.rung = next;
    progress.rests = if next == Rung::Cooled { progress.rests + 1 } else { 0 };
    let rests = if next == Rung::Cooled { Millis(REST.0 << (progress.rests - 1)) } else { Millis::ZERO };
    let note = Some(note(offence, count, next, rests).into());
    Judgement { offence: Some(offence), rung: next, note, rests, hop: 0 }
}

/// One rung down. Nobody comes back from a human's desk by itself.
fn descend(progress: &mut Progress) {
    progress.rung = match progress.rung {
        Rung::Well | Rung::Warned => Rung::Well,
        Rung::Cooled => Rung::Warned,
        far @ (Rung::Paused | Rung::Quarantined) => far,
    };
    progress.rests = 0;
}

fn note(offence: Offence, count: u32, rung: Rung, rests: Millis) -> String {
    let what = match offence {
        Offence::Repeats => format!("the same work was asked for again after {count} times the same answer"),
        Offence::Cycle => format!("the same messages went to and fro {count} times"),
        Offence::Hops => format!("a chain of {count} messages led here, and the next is not delivered"),
        Offence::Still => format!("{count} turns in a row changed nothing"),
    };
    let then = match rung {
        Rung::Well | Rung::Warned => "try something else, or end with what there is".to_owned(),
        Rung::Cooled => {
            format!("the next turn comes after {rests}; try something else, or end with what there is")
        }
        Rung::Paused => "a human must let this agent go on".to_owned(),
        Rung::Quarantined => "this agent is taken out of service".to_owned(),
    };
    format!("no progress: {what}; {then}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: GuardRule = GuardRule { repeats: 3, polls: 100, cycles: 3, hops: 16, still: 8 };

    /// An agent that asks, is answered, and is judged.
    #[derive(Default)]
    struct Actor {
        progress: Progress,
        /// As the machine keeps it.
        hop: u16,
        offences: Vec<Offence>,
        rests: Vec<u64>,
    }

    impl Actor {
        fn turn(&mut self, seen: &Seen<'_>) -> Judgement {
            let judgement = after_turn(&mut self.progress, &RULE, &Seen { hop: self.hop, ..*seen });
            self.hop = judgement.hop;
            self.offences.extend(judgement.offence);
            assert_eq!(judgement.offence.is_some(), judgement.note.is_some());
            if judgement.rung == Rung::Cooled && judgement.offence.is_some() {
                self.rests.push(judgement.rests.0);
            }
            assert!(self.progress.twins.len() <= limits::TWINS_MAX);
            assert!(self.progress.letters.len() <= limits::GUARD_LETTERS_MAX);
            judgement
        }

        fn ask(&mut self, kind: &'static str, twin: u64) -> Judgement {
            self.turn(&Seen { asked: &[Asked { kind, twin }], ..Seen::default() })
        }

        fn hear(&mut self, kind: &'static str, twin: u64, answer: u64, changed: bool) {
            self.turn(&Seen { heard: &[Heard { kind, twin, answer }], changed, ..Seen::default() });
        }

        /// A model is asked what to do next and says something new, as models do.
        fn think(&mut self, n: u64) {
            self.ask("model", n);
            self.hear("model", n, n, true);
        }

        /// Work is asked for and answered.
        fn work(&mut self, kind: &'static str, twin: u64, answer: u64) {
            self.ask(kind, twin);
            self.hear(kind, twin, answer, false);
        }

        fn read(&mut self, peer: u64, body: u64, hop: u16) {
            self.turn(&Seen { mail: &[Letter { peer, body, hop }], ..Seen::default() });
        }

        /// Sends a message: the hop that it carries.
        fn send(&mut self, peer: u64, body: u64) -> u16 {
            let sent = [Letter { peer, body, hop: 0 }];
            self.turn(&Seen { sent: &sent, changed: true, ..Seen::default() }).hop
        }

        fn stopped(&self) -> bool {
            self.progress.rung >= Rung::Paused
        }
    }

    #[test]
    fn the_same_work_climbs_the_whole_ladder() {
        use Rung::{Cooled, Paused, Quarantined, Warned, Well};
        let mut actor = Actor::default();
        let mut rungs = Vec::new();
        for n in 0..9 {
            // A model between, whose every word is new, makes it no better.
            actor.think(1_000 + n);
            rungs.push(actor.ask("tool", 7).rung);
            actor.hear("tool", 7, 1, true);
        }
        assert_eq!(rungs, [Well, Well, Well, Warned, Cooled, Cooled, Cooled, Paused, Quarantined]);
        assert_eq!(actor.rests, [1_000, 2_000, 4_000]);
        assert!(actor.offences.iter().all(|offence| *offence == Offence::Repeats));
    }

    #[test]
    fn going_round_in_a_small_circle_is_noticed() {
        let mut actor = Actor::default();
        for n in 0..60 {
            actor.work("tool", 1 + n % 5, 9);
        }
        assert!(actor.stopped());
    }

    #[test]
    fn a_warned_agent_that_does_something_new_is_well_again() {
        let mut actor = Actor::default();
        for _ in 0..4 {
            actor.work("tool", 7, 1);
        }
        assert_eq!(actor.progress.rung, Rung::Warned);
        actor.work("tool", 8, 1);
        assert_eq!(actor.progress.rung, Rung::Well);
        for _ in 0..2 {
            actor.work("tool", 7, 1);
        }
        assert_eq!(actor.progress.rung, Rung::Well, "what was before is forgiven");
    }

    #[test]
    fn polling_with_time_between_has_a_larger_bound() {
        let mut actor = Actor::default();
        let poll = |actor: &mut Actor, answer| {
            actor.work("tool", 7, answer);
            actor.ask("timer", 0);
            actor.hear("timer", 0, 0, false);
        };
        for _ in 0..99 {
            poll(&mut actor, 1);
        }
        // It is done: the other answer begins anew.
        for _ in 0..100 {
            poll(&mut actor, 2);
        }
        assert_eq!(actor.offences, []);
        for _ in 0..10 {
            poll(&mut actor, 2);
        }
        assert!(actor.offences.contains(&Offence::Repeats) && actor.stopped());
    }

    #[test]
    fn a_poll_whose_answer_changes_is_no_offence() {
        let mut actor = Actor::default();
        for percent in 0..500 {
            actor.think(1_000 + percent);
            actor.work("tool", 7, percent);
            actor.work("get", 8, 3);
        }
        assert_eq!(actor.offences, []);
        let mut actor = Actor::default();
        for percent in 0..5_000 {
            actor.work("tool", 7, percent);
        }
        assert_eq!(actor.offences, []);
    }

    #[test]
    fn retrying_a_failure_is_no_offence_if_it_helps() {
        let mut actor = Actor::default();
        for tool in 0..200 {
            for answer in [666, 666, tool] {
                actor.think(10_000 + tool);
                actor.work("tool", 1 + tool, answer);
            }
        }
        assert_eq!(actor.offences, []);
    }

    #[test]
    fn mapping_over_a_thousand_items_is_no_offence() {
        // One by one, the same setting looked up before each, and all with the same answer.
        let mut actor = Actor::default();
        for item in 0..1_000 {
            actor.work("get", 1, 5);
            actor.work("tool", 100 + item, 5);
        }
        assert_eq!(actor.offences, []);
        // All at once, the same work many times over, answered in as many turns.
        let mut actor = Actor::default();
        let asked: Vec<Asked> =
            (0..1_000).map(|item| Asked { kind: "child", twin: 1 + item % 100 }).collect();
        actor.turn(&Seen { asked: &asked, ..Seen::default() });
        for item in 0..1_000 {
            actor.hear("child", 1 + item % 100, 5, true);
        }
        assert_eq!(actor.offences, []);
        // Samples of one question that agree, a few rounds of them.
        let mut actor = Actor::default();
        for round in 0..20 {
            let asked = [Asked { kind: "child", twin: 7 + round / 3 }; 5];
            actor.turn(&Seen { asked: &asked, ..Seen::default() });
            for _ in 0..5 {
                actor.hear("child", 7 + round / 3, 1, true);
            }
        }
        assert_eq!(actor.offences, []);
    }

    #[test]
    fn two_agents_that_say_the_same_are_stopped_in_the_third_cycle() {
        let (mut a, mut b) = (Actor::default(), Actor::default());
        let mut hop = a.send(2, 10);
        let mut said = 1;
        while !a.stopped() && !b.stopped() {
            assert!(said < 20, "never stopped");
            let (actor, peer, hears, says) =
                if said % 2 == 1 { (&mut b, 1, 10, 20) } else { (&mut a, 2, 20, 10) };
            actor.read(peer, hears, hop);
            actor.think(1_000 + said);
            hop = actor.send(peer, says);
            said += 1;
        }
        // The fifth message begins the third cycle.
        assert_eq!((said, hop, a.offences, b.offences), (5, 4, vec![Offence::Cycle], vec![]));
    }

    #[test]
    fn three_agents_in_a_circle_are_stopped_too() {
        let mut actors = [Actor::default(), Actor::default(), Actor::default()];
        let (mut hop, mut said) = (0, 0);
        while !actors.iter().any(Actor::stopped) {
            let (actor, peer) = (&mut actors[said % 3], said as u64 % 3);
            if said > 0 {
                actor.read(peer + 9, 5, hop);
            }
            hop = actor.send(peer, 5);
            said += 1;
            assert!(said < 30, "never stopped");
        }
        assert_eq!(said, 7, "as the third cycle begins");
    }

    #[test]
    fn a_negotiation_goes_on_up_to_the_bound_of_hops() {
        let (mut a, mut b) = (Actor::default(), Actor::default());
        let mut hop = a.send(2, 1_000);
        while !too_far(hop, &RULE) {
            assert!(a.offences.is_empty() && b.offences.is_empty(), "different contents each time");
            let (actor, peer) = if hop % 2 == 0 { (&mut b, 1) } else { (&mut a, 2) };
            actor.read(peer, 1_000 + u64::from(hop), hop);
            hop = actor.send(peer, 1_001 + u64::from(hop));
        }
        // The first has no hop; the seventeenth hop is not delivered.
        assert_eq!((hop, a.offences, b.offences), (17, vec![], vec![Offence::Hops]));
    }

    #[test]
    fn chatting_with_many_is_no_offence() {
        // Everybody greets with the same words and gets the same answer.
        let mut actor = Actor::default();
        for peer in 0..1_000 {
            actor.read(peer, 1, 0);
            actor.think(peer + 10);
            actor.send(peer, 2);
        }
        // One who asks different things and is always told `ok`.
        for question in 0..1_000 {
            actor.read(1, 100 + question, 3);
            actor.send(1, 2);
        }
        // One who asks the same every minute because a clock of its own told it to.
        for _ in 0..1_000 {
            actor.read(1, 7, 0);
            actor.send(1, 2);
        }
        // And five errands that came at once and are reported one by one in the same words.
        let mail: Vec<Letter> = (0..5).map(|n| Letter { peer: 1, body: 500 + n, hop: 4 }).collect();
        actor.turn(&Seen { mail: &mail, ..Seen::default() });
        for _ in 0..5 {
            actor.send(1, 2);
        }
        assert_eq!(actor.offences, []);
    }

    #[test]
    fn a_beat_every_minute_is_no_cycle_and_no_standstill() {
        let mut actor = Actor::default();
        for _ in 0..1_000 {
            actor.turn(&Seen {
                heard: &[Heard { kind: "timer", twin: 0, answer: 0 }],
                asked: &[Asked { kind: "timer", twin: 0 }],
                ..Seen::default()
            });
            assert_eq!(actor.send(1, 7), 0, "time led to it");
            actor.read(1, 8, 1);
        }
        assert_eq!(actor.offences, []);
    }

    #[test]
    fn turns_that_change_nothing_are_counted() {
        let mut actor = Actor::default();
        for _ in 0..7 {
            assert_eq!(actor.turn(&Seen::default()).offence, None);
        }
        actor.turn(&Seen { changed: true, ..Seen::default() });
        for _ in 0..7 {
            assert_eq!(actor.turn(&Seen::default()).offence, None);
        }
        let judgement = actor.turn(&Seen::default());
        assert_eq!((judgement.offence, judgement.rung), (Some(Offence::Still), Rung::Warned));
        assert_eq!(
            judgement.note.as_deref(),
            Some(
                "no progress: 8 turns in a row changed nothing; try something else, or end with what there is"
            )
        );
        for _ in 0..4 {
            actor.turn(&Seen::default());
        }
        assert_eq!(actor.progress.rung, Rung::Paused);
    }

    #[test]
    fn a_human_gives_one_more_chance() {
        let mut actor = Actor::default();
        for _ in 0..8 {
            actor.ask("tool", 7);
            actor.hear("tool", 7, 1, true);
        }
        assert_eq!(actor.progress.rung, Rung::Paused);
        resume(&mut actor.progress);
        actor.offences.clear();
        for _ in 0..3 {
            actor.work("tool", 7, 1);
        }
        assert_eq!(actor.offences, [], "what it did is no longer counted");
        assert_eq!(actor.ask("tool", 7).rung, Rung::Quarantined);
        resume(&mut actor.progress);
        actor.work("tool", 8, 1);
        assert_eq!(actor.progress.rung, Rung::Warned, "something new");
        for _ in 0..3 {
            actor.work("tool", 8, 1);
        }
        assert_eq!(actor.progress.rung, Rung::Cooled);
    }

    #[test]
    fn zero_turns_a_rule_off() {
        let off = GuardRule { repeats: 0, polls: 0, cycles: 0, hops: 0, still: 0 };
        let mut progress = Progress::default();
        for _ in 0..500 {
            let seen = Seen {
                heard: &[Heard { kind: "tool", twin: 7, answer: 1 }],
                mail: &[Letter { peer: 1, body: 2, hop: 99 }],
                asked: &[Asked { kind: "tool", twin: 7 }],
                sent: &[Letter { peer: 1, body: 3, hop: 0 }],
                hop: 500,
                changed: false,
            };
            assert_eq!(after_turn(&mut progress, &off, &seen).offence, None);
        }
    }

    proptest! {
        /// Whatever an agent does, memory is bounded and the ladder is climbed rung by rung.
        #[test]
        fn the_ladder_has_no_missing_rungs(turns in proptest::collection::vec(
            (0_u64..5, 0_u64..3, 0_u64..4, 0_u64..3, 0_u16..20, any::<bool>()), 1..300)) {
            let mut actor = Actor::default();
            for (twin, answer, peer, body, hop, changed) in turns {
                let before = actor.progress.rung;
                let judgement = actor.turn(&Seen {
                    heard: &[Heard { kind: "tool", twin, answer }],
                    mail: &[Letter { peer, body, hop }],
                    asked: &[Asked { kind: "tool", twin }],
                    sent: &[Letter { peer, body, hop: 0 }],
                    hop: 0,
                    changed,
                });
                let (was, is) = (before as u8, judgement.rung as u8);
                prop_assert!(was.abs_diff(is) <= 1 || judgement.offence == Some(Offence::Cycle));
                prop_assert!(is <= was || judgement.offence.is_some(), "nobody climbs without an offence");
                prop_assert!(before < Rung::Paused || judgement.rung >= before, "only a human brings it back");
            }
        }
    }
}
