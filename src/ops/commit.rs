//! Makes a change and logs it.

use super::history::log;
use super::log::ChangeEvent;
use super::transaction::{Committed, Transaction, TransactionError};

/// Makes a change and writes it to the system log.
///
/// # Errors
/// As [`Transaction::commit`].
pub fn commit_and_log(
    transaction: &Transaction<'_>,
    event: ChangeEvent,
) -> Result<Committed, TransactionError> {
    let committed = transaction.commit();
    match &committed {
        Ok(_) => log(transaction.change, event),
        Err(TransactionError::Uncertain { .. }) => log(transaction.change, ChangeEvent::Uncertain),
        Err(_) => {}
    }
    committed
}
