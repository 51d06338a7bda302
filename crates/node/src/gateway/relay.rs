//! An answer on its way from an engine to a client. It is polled by the client's
//! connection, so a client that reads slowly holds the engine back, and a client that
//! leaves drops it, which ends the upstream call at once (I8).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use seawall_kernel::Failure;
use seawall_model::{At, Code, Fault, Finish, Millis, Tokens, Usage};
use seawall_wire::meter::Meter;
use tokio::time::Sleep;

use crate::app::Phase;
use crate::clock;
use crate::seat::Halted;
use crate::upstream::Coming;

use super::handed::Handed;
use super::journey::Journey;
use super::memo::{self, Copy};
use super::reply::BoxError;

/// The kernel hears of a stream's output once per this many tokens: often enough to
/// charge a tenant while it is served, rarely enough to cost nothing.
const PROGRESS_EVERY: u64 = 64;

/// What a translation holds is accounted for in steps of so many bytes; one step lies in
/// the window that every call holds anyway.
const HELD_STEP: u64 = 64 << 10;

/// What a body says when it is polled.
pub type Piece = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// How the engine's bytes become the client's.
#[derive(Debug)]
pub enum Flow {
    /// The same protocol: passed on as they are, and metered.
    Same(Box<Meter>),
    /// Another protocol: taken apart and built anew.
    Translated(Box<seawall_wire::translate::Stream>),
    /// Not looked at.
    Raw,
}

impl Flow {
    fn usage(&self) -> Option<Usage> {
        match self {
            Self::Same(meter) => meter.usage(),
            Self::Translated(stream) => stream.usage(),
            Self::Raw => None,
        }
    }

    fn finish(&self) -> Option<Finish> {
        match self {
            Self::Same(meter) => meter.finish(),
            Self::Translated(stream) => stream.finish(),
            Self::Raw => None,
        }
    }

    /// Has its last event come, and was it no error?
    fn complete(&self) -> bool {
        match self {
            Self::Same(meter) => meter.complete() && !meter.failed(),
            Self::Translated(stream) => stream.complete(),
            Self::Raw => false,
        }
    }

    fn tokens(&self) -> u64 {
        match self {
            Self::Same(meter) => meter.tokens(),
            Self::Translated(stream) => stream.tokens(),
            Self::Raw => 0,
        }
    }
}

/// An answer under way.
#[derive(Debug)]
pub struct Relay {
    // Dropped first: the upstream call ends before anything is told of it.
    upstream: Option<Coming>,
    flow: Flow,
    ready: VecDeque<Bytes>,
    journey: Journey,
    stall: Pin<Box<Sleep>>,
    stall_max: Millis,
    heard: At,
    reported: u64,
    /// How long the client was waited for since then.
    waited: Millis,
    /// Is it an event stream (whose end and errors have a form), or a plain body?
    events: bool,
    handed: Arc<Handed>,
    /// How the engine's status has already said that it failed.
    judged: Option<Failure>,
    /// What the translation holds beyond the window, in steps.
    beside: u64,
    /// Where it is copied to, if it is to be kept.
    copy: Option<Copy>,
    /// Has it come to its end as it should?
    well: bool,
    /// What says that the call's run was stopped.
    halted: Option<Halted>,
}

impl Relay {
    /// Starts relaying. The window that it needs is held by the call since before it was
    /// sent.
    #[must_use]
    pub fn new(upstream: Coming, flow: Flow, journey: Journey, stall_max: Millis, events: bool) -> Self {
        let stall = Box::pin(tokio::time::sleep(Duration::from_millis(stall_max.0)));
        Self {
            upstream: Some(upstream),
            flow,
            ready: VecDeque::new(),
            stall,
            stall_max,
            heard: clock::now(),
            reported: 0,
            waited: Millis::ZERO,
            events,
            handed: Arc::default(),
            judged: None,
            beside: 0,
            copy: None,
            well: false,
            halted: None,
            journey,
        }
    }

    /// The engine failed by its status, whatever comes of the body, which is passed on.
    #[must_use]
    pub fn judged(mut self, failure: Failure) -> Self {
        self.judged = Some(failure);
        self
    }

    /// Takes in what was received before the relay began, which may be all there is.
    pub fn prime(&mut self, first: Bytes) {
        if !first.is_empty() {
            self.take_in(first);
        }
        self.end_with_the_last_piece();
    }

    /// Ends the answer when its run is stopped.
    pub fn halts_on(&mut self, halted: Option<Halted>) {
        self.halted = halted;
    }

    /// Keeps a copy, if the answer comes to its end. Said before the first poll.
    pub fn copy_to(&mut self, mut copy: Copy) {
        for bytes in &self.ready {
            copy.add(bytes);
        }
        self.copy = Some(copy);
        if self.well {
            self.keep();
        }
    }

    /// The exact length still to come, where it is known: all of it is here, or the engine
    /// gave one and the bytes pass unchanged.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        let ready: u64 = self.ready.iter().map(|bytes| bytes.len() as u64).sum();
        let coming = match (&self.upstream, &self.flow) {
            (None, _) => Some(0),
            (Some(upstream), Flow::Raw) => upstream.size_hint().exact(),
            (Some(_), _) => None,
        };
        coming.map_or_else(SizeHint::default, |coming| SizeHint::with_exact(ready + coming))
    }

    /// Has the last piece been handed on?
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.upstream.is_none() && self.ready.is_empty()
    }

    /// When the client last took something.
    #[must_use]
    pub fn handed(&self) -> &Arc<Handed> {
        &self.handed
    }

    /// The next piece for the client.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Piece {
        self.waited += self.handed.asked();
        let piece = self.next(cx);
        if piece.is_ready() {
            self.handed.gave();
        }
        piece
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Piece {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if self.upstream.is_some() && *self.journey.app().phase.borrow() >= Phase::Cutting {
                return self.break_off(Failure::Deadline, Code::Draining);
            }
            if self.upstream.is_some() && self.stopped(cx) {
                return self.halt();
            }
            let Some(upstream) = self.upstream.as_mut() else {
                return Poll::Ready(None);
            };
            match Pin::new(upstream).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.heard = clock::now();
                    if let Ok(bytes) = frame.into_data() {
                        self.take_in(bytes);
                    }
                    self.end_with_the_last_piece();
                }
                Poll::Ready(Some(Err(_))) => return self.break_off(Failure::Cut, Code::EngineCut),
                Poll::Ready(None) => self.complete(),
                Poll::Pending => {
                    if self.stalled(cx) {
                        return self.break_off(Failure::Timeout, Code::EngineTimeout);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn take_in(&mut self, bytes: Bytes) {
        self.journey.first_byte();
        match &mut self.flow {
            Flow::Same(meter) => {
                let bytes = meter.relay(bytes);
                if !bytes.is_empty() {
                    give(&mut self.ready, &mut self.copy, bytes);
                }
            }
            Flow::Translated(stream) => {
                let mut out = Vec::with_capacity(bytes.len() * 2);
                let fed = stream.feed(&bytes, &mut out);
                if !out.is_empty() {
                    give(&mut self.ready, &mut self.copy, out.into());
                }
                let held = stream.held() as u64;
                if let Err(fault) = fed {
                    self.end_with_fault(Failure::Garbled, &fault);
                } else if !self.account(held) {
                    self.journey.blames(Code::MemoryFull);
                    self.end_with_fault(Failure::TooLarge, &Fault::plain(Code::MemoryFull));
                }
            }
            Flow::Raw => give(&mut self.ready, &mut self.copy, bytes),
        }
        self.report();
    }

    /// Accounts for what the translation holds; `false` if the byte budget has no room.
    fn account(&mut self, held: u64) -> bool {
        let beside = held.saturating_sub(HELD_STEP).div_ceil(HELD_STEP) * HELD_STEP;
        if beside == self.beside {
            return true;
        }
        let room = self.journey.holds_beside(beside);
        if room {
            self.beside = beside;
        }
        room
    }

    fn report(&mut self) {
        let tokens = self.flow.tokens();
        if tokens >= self.reported + PROGRESS_EVERY {
            self.reported = tokens;
            self.journey.progress(Tokens(tokens), std::mem::take(&mut self.waited));
        }
    }

    /// Has the engine been silent for too long? One timer serves the whole stream: when
    /// it rings it is set anew for what is left since the last byte.
    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        while self.stall.as_mut().poll(cx).is_ready() {
            let silent = clock::now().since(self.heard);
            if silent >= self.stall_max {
                return true;
            }
            let left = Duration::from_millis(self.stall_max.saturating_sub(silent).0);
            self.stall.as_mut().reset(tokio::time::Instant::now() + left);
        }
        false
    }

    /// Completes the call with the last piece of a body whose end is known by its length:
    /// nobody asks for more once that is handed on, and the call would count as left.
    fn end_with_the_last_piece(&mut self) {
        if self.upstream.as_ref().is_some_and(Body::is_end_stream) {
            self.complete();
        }
    }

    /// The engine's body has ended: well, or before its last event.
    fn complete(&mut self) {
        match &mut self.flow {
            Flow::Same(meter) => {
                let tail = meter.flush();
                if !tail.is_empty() {
                    give(&mut self.ready, &mut self.copy, tail);
                }
                if self.events && !meter.complete() && !meter.failed() {
                    return self.end_with_fault(Failure::Cut, &Fault::plain(Code::EngineCut));
                }
            }
            Flow::Translated(stream) => {
                let mut out = Vec::new();
                let ended = stream.end(&mut out);
                if !out.is_empty() {
                    give(&mut self.ready, &mut self.copy, out.into());
                }
                if let Err(fault) = ended {
                    return self.end_with_fault(Failure::Cut, &fault);
                }
            }
            Flow::Raw => {}
        }
        self.upstream = None;
        let failed = matches!(&self.flow, Flow::Same(meter) if meter.failed());
        let failed = self.judged.or_else(|| failed.then_some(Failure::Server { status: 500 }));
        let usage = self.usage();
        match failed {
            Some(failure) => self.journey.broke(failure, usage),
            None => {
                self.journey.finished(usage, self.flow.finish());
                self.keep();
            }
        }
    }

    /// Was its run stopped?
    fn stopped(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(halted) = self.halted.as_mut() else { return false };
        let Poll::Ready(word) = Pin::new(halted).poll(cx) else { return false };
        self.halted = None;
        word.is_ok()
    }

    /// The run was stopped: the upstream call ends, and the client is told why.
    fn halt(&mut self) -> Piece {
        self.upstream = None;
        self.copy = None;
        let usage = self.usage();
        self.journey.cancelled(usage);
        self.tell(&Fault::plain(Code::RunStopped));
        self.last_word(Code::RunStopped)
    }

    /// The answer cannot be completed. An event stream says so in its protocol; of any
    /// other body the connection is cut, so that no client takes a part for the whole.
    fn break_off(&mut self, failure: Failure, code: Code) -> Piece {
        self.end_with_fault(failure, &Fault::plain(code));
        self.last_word(code)
    }

    /// What an answer that was ended says last.
    fn last_word(&mut self, code: Code) -> Piece {
        match self.ready.pop_front() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.events => Poll::Ready(None),
            None => Poll::Ready(Some(Err(code.row().says.into()))),
        }
    }

    fn end_with_fault(&mut self, failure: Failure, fault: &Fault) {
        self.upstream = None;
        let usage = self.usage();
        self.journey.broke(failure, usage);
        self.tell(fault);
    }

    /// Tells the client of a fault, where the form of the answer allows it.
    fn tell(&mut self, fault: &Fault) {
        if self.events {
            let origin = self.journey.origin();
            self.ready
                .push_back(seawall_wire::fault::fault_event(origin.protocol, fault, &origin.trace).into());
        }
    }

    /// The answer came to its end, and so did its copy.
    fn keep(&mut self) {
        self.well = true;
        if let Some(copy) = self.copy.take() {
            copy.done();
        }
    }

    fn usage(&self) -> Usage {
        self.flow.usage().unwrap_or_else(|| self.journey.estimate(self.flow.tokens()))
    }
}

/// Puts a piece before the client, and into the copy if there is one.
fn give(ready: &mut VecDeque<Bytes>, copy: &mut Option<Copy>, piece: Bytes) {
    memo::copy(copy.as_mut(), &piece);
    ready.push_back(piece);
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.journey.over() {
            return;
        }
        // The client left. The upstream call ends here, before the books are closed; the
        // time between is the metric that has to stay 0.
        let noticed = clock::now();
        self.upstream = None;
        // Many clients leave at the last event without waiting for the stream's end.
        if self.events && self.judged.is_none() && self.flow.complete() {
            self.keep();
        }
        let usage = self.usage();
        let late = clock::now().micros_since(noticed);
        self.journey.app().metrics.service.orphaned.inc_by(late as f64 / 1_000_000.0);
        match self.judged {
            Some(failure) => self.journey.broke(failure, usage),
            None => self.journey.cancelled(usage),
        }
    }
}
