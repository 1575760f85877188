//! Internet messages: what is native of `smtp.message` and `smtp.dkim`.
//!
//! [`header`] writes header fields (mail-builder's rules for folding, encoded words and RFC 2231 parameters, and plain
//! UTF-8 where SMTPUTF8 allows it), [`transfer`] turns bodies of any size into lines piece by piece, [`dkim`]
//! canonicalises and signs. None of it knows a socket; `lua` is what scripts see.

pub mod dkim;
pub mod header;
pub(crate) mod lua;
pub mod transfer;
