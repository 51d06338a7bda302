//! Strict priority bands: no call goes while one of a higher class waits, first come first
//! served within a class. How llm-d's flow control dispatches between priorities
//! (llm-d/llm-d-router at ebab687, `pkg/epp/flowcontrol`), and most priority queues.

use std::collections::VecDeque;

use super::Order;
use crate::capacity::replay::{Ask, Scene};

/// One queue per class, highest first.
#[derive(Debug, Default)]
pub struct Bands {
    queues: [VecDeque<usize>; 3],
}

impl Order for Bands {
    fn push(&mut self, scene: Scene<'_>, call: usize) {
        self.queues[scene.asks[call].class as usize].push_back(call);
    }

    fn head(&mut self, _scene: Scene<'_>) -> Option<usize> {
        self.queues.iter().find_map(|queue| queue.front().copied())
    }

    fn pop(&mut self, ask: &Ask, _sent: bool) {
        self.queues[ask.class as usize].pop_front();
    }
}
