//! One refused or failed call, as a client is told of it.

use std::borrow::Cow;

use crate::{Code, Millis};

/// What the client is told: a code from the table, what happened, and what to do.
/// Wire renders it in the client's protocol; it never holds prompt or completion text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The row of the table.
    pub code: Code,
    /// What happened, in one sentence.
    pub message: Cow<'static, str>,
    /// When to try again, for codes whose retry is `after`.
    pub retry_after: Option<Millis>,
    /// The JSON field or header at fault, where one is.
    pub param: Option<Cow<'static, str>>,
    /// What to do, where that is known better than the code's row has it.
    pub advice: Option<Cow<'static, str>>,
    /// The methods that the path takes, where it was asked with another: `GET, HEAD`.
    pub takes: Option<Cow<'static, str>>,
}

impl Fault {
    /// A fault with the given words.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None, param: None, advice: None, takes: None }
    }

    /// A fault that says no more than its code's own sentence.
    #[must_use]
    pub fn plain(code: Code) -> Self {
        Self::new(code, code.row().says)
    }

    /// The same, naming the field or header at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same, saying when to try again.
    #[must_use]
    pub fn after(mut self, wait: Millis) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same, saying what to do in words of its own.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        self.advice.as_deref().unwrap_or(self.code.row().hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_of_its_own_stands_before_that_of_the_code() {
        let fault = Fault::plain(Code::RunUnknown);
        assert_eq!(fault.hint(), Code::RunUnknown.row().hint);
        assert_eq!(fault.advise("Look again.").hint(), "Look again.");
    }
}
