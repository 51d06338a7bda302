//! First come, first served: what every engine does by itself, and every gateway that
//! passes calls on as they come.

use std::collections::VecDeque;

use super::Order;
use crate::capacity::replay::{Ask, Scene};

/// One queue.
#[derive(Debug, Default)]
pub struct Fcfs {
    queue: VecDeque<usize>,
}

impl Order for Fcfs {
    fn push(&mut self, _scene: Scene<'_>, call: usize) {
        self.queue.push_back(call);
    }

    fn head(&mut self, _scene: Scene<'_>) -> Option<usize> {
        self.queue.front().copied()
    }

    fn pop(&mut self, _ask: &Ask, _sent: bool) {
        self.queue.pop_front();
    }
}
