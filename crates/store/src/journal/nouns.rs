//! The stored fields of every noun, in stored order: this list is the format. A change
//! here is a new format version (see `codec`), unless nothing of it was ever released.

use seawall_model::durable::{
    AgentRow, DeadLetter, Fate, Forked, Holder, Item, LeaseRow, Message, Pending, Progress, RunRow, RunState,
    Rung, ScheduleRow, Scope, Setback, ShardRow, Stage, Standing, Stop, Tie, TopicRow, Twin, ValueRow, Wake,
};
use seawall_model::effect::{Allowance, Answer, Approval, Ask, Deputy, Handed, Ruling, Spend, Verdict, Work};
use seawall_model::journal::{Change, Ending, Event, Next, Planned, Record, Turn};
use seawall_model::{EffectClass, EffectId};

use super::codec::{Flaw, Noun, Sink, Source, fields, names, variants};
use super::json::Json;

#[cfg(test)]
use super::codec::Dice;

names!(EffectClass { 0 Read, 1 Idempotent, 2 Compensable, 3 Irreversible, });
names!(Standing { 0 Idle, 1 Active, 2 Quarantined, 3 Done, });
names!(Wake { 0 Any, 1 All, });
names!(Rung { 0 Well, 1 Warned, 2 Cooled, 3 Paused, 4 Quarantined, });

impl Noun for EffectId {
    fn write(&self, sink: &mut Sink) {
        self.run.write(sink);
        self.number.write(sink);
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        Ok(Self { run: Noun::read(source)?, number: Noun::read(source)? })
    }
    fn show(&self, json: &mut Json) {
        json.text(&self.to_string());
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        Self { run: Noun::invent(dice), number: Noun::invent(dice) }
    }
}

fields!(Spend { tokens, money, calls, steps });
fields!(Allowance { tokens, money, calls, steps, wall, children, depth });

variants!(Work {
    0 Model { model, recipe },
    1 Tool { tool, args, undo, query },
    2 Child { agent, task, allowance },
    3 Message { to, body },
    4 Timer { at },
    5 Promise { question },
    6 Get { key },
    7 Put { key, value, expect },
    8 Watch { key, version },
    9 Acquire { resource, units, of, ttl },
    10 Release { resource, token },
    11 Publish { topic, body },
    12 Subscribe { topic, on },
    13 Monitor { agent },
    14 Link { agent, on },
});

// Facts serve the gate alone, which has ruled by the time that anything is written.
fields!(Ask { tag, work, class, cost_max, patience, twin } without facts);

variants!(Answer { 0 Done(payload), 1 Error(payload), 2 Failed { code, why }, });
variants!(Verdict { 0 Allow, 1 Redact(paths), 2 Ask(approval), 3 Deny, });
fields!(Approval { quorum, approvers, patience, deputy });
fields!(Deputy { to, after });
fields!(Handed { by, to, at });
fields!(Ruling { rule, verdict });

variants!(Item {
    0 Task { run },
    1 Answer { effect, tag, kind, twin, answer },
    2 Mail(message),
    3 Note(text),
});
fields!(Message { id, from, name, at, hop, body });
fields!(DeadLetter { number, to, message, why });
variants!(Stage {
    0 Approving { yes, until },
    1 Ready { after },
    2 Attempted,
    3 Waiting,
    4 Doubtful { why },
});
fields!(Pending {
    id,
    tag,
    work,
    class,
    ruling,
    reserved,
    twin,
    stage,
    attempts,
    asked,
    until,
    child,
    handed,
    setback,
});
fields!(Setback { code, why, first, last });
fields!(Twin { work, answer, count, quick });
fields!(Progress { twins, still, letters, rung, rests, touched });
fields!(AgentRow {
    address,
    shard,
    seq,
    changed,
    standing,
    lasting,
    run,
    queue,
    inbox,
    pending,
    wake,
    rests_until,
    expires,
    strikes,
    progress,
    seen,
    topics,
    why,
    ties,
});
fields!(Tie { run, effect, peer, linked, fate });
variants!(Fate { 0 Done, 1 Failed { code, why }, 2 Cancelled { by }, 3 Quarantined { why }, });
variants!(RunState {
    0 Queued,
    1 Active,
    2 Done { output },
    3 Failed { code, why },
    4 Cancelled { by },
});
fields!(Forked { run, turn });
fields!(RunRow {
    key,
    agent,
    parent,
    root,
    depth,
    version,
    task,
    allowance,
    used,
    reserved,
    state,
    began,
    ended,
    turns,
    effects,
    children,
    restarts,
    hop,
    by,
    caller,
    fork,
    seq
});

fields!(ValueRow { tenant, key, version, value, by, at });
fields!(Holder { effect, agent, token, units, until });
fields!(LeaseRow { tenant, resource, token, of, holders });
fields!(TopicRow { tenant, topic, agents });
fields!(ScheduleRow { agent, fired });
variants!(Scope { 0 All, 1 Tenant(path), 2 Type(name), 3 Agent(address), 4 Tree(run), 5 Tool(name), });
fields!(Stop { scope, by, at });
fields!(ShardRow { shard, epoch, seq, runs, letters, tokens, halts });

variants!(Change { 0 Set { key, value }, 1 Keep { key, effect }, 2 Drop { key }, });
variants!(Ending { 0 Done(output), 1 Failed { code, why }, 2 Cancelled { by }, });
variants!(Next { 0 Wait(wake), 1 End(ending), 2 Again { rests_until, why }, });
fields!(Planned { ask, ruling, stage, refused, reserved, until, child });
fields!(Turn { run, number, seen, changes, effects, next, progress, hop, note, rests_until });
variants!(Event {
    0 Opened,
    1 Started { run, lasting, state, schedule },
    2 Turned(turn),
    3 Stumbled { run, why, rests_until },
    4 Attempted { effect },
    5 Postponed { effect, until, code, why, counts, used },
    6 Answered { effect, answer, used, by },
    7 Doubted { effect, why },
    8 Voted { effect, by, yes, args, stage, ruling },
    9 Mailed { message, by },
    10 Lettered { message, why },
    11 Unlettered { number, sent, by },
    12 Ended { run, ending },
    13 Restarted { run, rests_until, why },
    14 Quarantined { why },
    15 Released { by },
    16 Halted { scope, on, by },
    17 Moved { run, version },
    18 Put { tenant, key, value, version, by, who },
    19 Granted { tenant, resource, of, holder },
    20 Freed { tenant, resource, token },
    21 Subscribed { tenant, topic, agent, on },
    22 Tied { tie },
    23 Untied { run, effect },
    24 Delegated { effect, by, to },
    25 Defined { kind, version, by },
});
fields!(Record { at, agent, event });

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::codec::{FORMAT, read};
    use super::*;

    /// What was written is read again, no shorter form of it is taken for whole, and no
    /// longer one; a later format is refused as such.
    fn round<N: Noun + PartialEq + std::fmt::Debug>(seed: u64) {
        let noun = N::invent(&mut Dice(seed));
        let mut sink = Sink::default();
        let bytes = sink.hold(&noun).to_vec();
        let (back, blobs) = read::<N>(&bytes).expect("what was written is read");
        assert_eq!(back, noun);
        assert_eq!(blobs, sink.blobs, "reading meets the blobs that writing named");
        let cut = Dice(seed ^ 1).below(bytes.len() as u64) as usize;
        assert!(read::<N>(&bytes[..cut]).is_err(), "a torn one is noticed");
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(read::<N>(&longer).err(), Some(Flaw::Long));
        longer[0] = FORMAT + 1;
        assert_eq!(read::<N>(&longer).err(), Some(Flaw::Newer(FORMAT + 1)));
        let mut harmed = bytes;
        let at = Dice(seed ^ 2).below(harmed.len() as u64) as usize;
        harmed[at] = harmed[at].wrapping_add(Dice(seed ^ 3).number() as u8);
        // Any answer, as long as it is one.
        let _ = read::<N>(&harmed);
        let mut json = Json::new(seed.is_multiple_of(2));
        noun.show(&mut json);
        super::super::json::tests::check(&json.out);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_noun_comes_back_as_it_was_written(seed in any::<u64>()) {
            round::<Record>(seed);
            round::<AgentRow>(seed);
            round::<RunRow>(seed);
            round::<ShardRow>(seed);
            round::<ValueRow>(seed);
            round::<LeaseRow>(seed);
            round::<TopicRow>(seed);
            round::<ScheduleRow>(seed);
            round::<DeadLetter>(seed);
            round::<Ask>(seed);
        }

        #[test]
        fn no_bytes_break_the_reader(mut bytes in prop::collection::vec(any::<u8>(), 1..400)) {
            bytes[0] = FORMAT;
            let _ = (read::<Record>(&bytes), read::<AgentRow>(&bytes), read::<RunRow>(&bytes));
        }
    }

    #[test]
    fn a_length_that_nothing_stands_behind_takes_no_memory() {
        // A list of 2^62 texts.
        let bytes = [FORMAT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
        assert_eq!(read::<Vec<std::sync::Arc<str>>>(&bytes).err(), Some(Flaw::Short));
        assert_eq!(read::<u64>(&[FORMAT, 0xff]).err(), Some(Flaw::Short));
        let over = [0xff_u8; 11].map(|byte| byte);
        assert_eq!(read::<u64>(&[&[FORMAT][..], &over].concat()).err(), Some(Flaw::Number));
        assert_eq!(read::<u8>(&[FORMAT, 0x80, 0x02]).err(), Some(Flaw::Number), "256 is no byte");
    }

    #[test]
    fn the_form_of_a_record_stays_what_it_is() {
        use seawall_model::{Address, At, RunKey};
        let record = Record {
            at: At(300),
            agent: Some(Address::parse("acme/a/1").expect("valid")),
            event: Event::Attempted { effect: EffectId { run: RunKey(0x1f03), number: 7 } },
        };
        let mut sink = Sink::default();
        let expected = b"\x01\xac\x02\x01\x04acme\x03a/1\x04\x83\x3e\x07";
        assert_eq!(sink.hold(&record), expected, "files of format 1 hold this");
    }
}
