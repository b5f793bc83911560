//! One quota with all that belongs to it.

use super::cell::{Ask, Cell, Claim, Standing};
use super::fair::Shares;
use super::incident::{Account, Breach, Incident, Kind, Tally, User};
use super::rule::{OnError, Rule};
use super::standing::Configured;
use super::stated::{Reading, Stated};
use super::{Limited, Verdict, Why};
use crate::units::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// After so long what is shared may be there again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Where a cell lies: on the heap, or in memory that processes share.
pub type CellHome = Arc<dyn AsRef<Cell> + Send + Sync>;
/// Where the shares of a fair share lie.
pub type SharesHome = Arc<dyn AsRef<Shares> + Send + Sync>;

/// One quota: of one vendor and credential, under one policy name. All methods take `&self`, from any thread.
///
/// ```
/// use farcall::Timestamp;
/// use farcall::quota::{Ask, Claim, Limited, Rule, State, Stated, User, Verdict};
///
/// let (rule, t0) = (Rule::default(), Timestamp::from_nanos(1_700_000_000_000_000_000));
/// let quota = State::new(&rule);
/// let user = User { customer: 7, ..User::default() };
///
/// let mut claim = Claim::new();
/// assert_eq!(quota.before(&rule, &mut claim, &Ask::one(), &user, t0), Verdict::Pass);
/// // The answer says that nothing is left for the next ten seconds.
/// let said =
///     Stated { limit: Some(100), remaining: Some(0), resets_at: Some(t0.plus_millis(10_000)), window: None };
/// quota.state(&rule, &claim, &said, t0.plus_millis(80));
/// quota.end(&mut claim);
///
/// // A call that may wait for two seconds is refused at once.
/// let verdict = quota.before(&rule, &mut Claim::new(), &Ask::one(), &user, t0.plus_millis(90));
/// assert!(matches!(verdict, Verdict::Refuse { until, .. } if until >= t0.plus_millis(10_000)));
/// ```
pub struct State {
    cell: Home<Cell>,
    shares: Option<Home<Shares>>,
    account: Account,
    /// Whether others may use the cell too.
    shared: bool,
    /// Others have a part in it, but not in this.
    cut_off: bool,
}

impl State {
    /// A quota of this process alone.
    #[must_use]
    pub fn new(rule: &Rule) -> Self {
        let shares = rule.fair.then(|| Home::Own(Shares::new()));
        let (cell, account) = (Home::Own(Box::new(Cell::new())), Account::default());
        Self { cell, shares, account, shared: false, cut_off: false }
    }

    /// A quota whose cell, and shares if any, lie where other processes use them too.
    #[must_use]
    pub fn at(cell: CellHome, shares: Option<SharesHome>) -> Self {
        let account = Account::beside(Arc::clone(&cell));
        let (cell, shares) = (Home::Elsewhere(cell), shares.map(Home::Elsewhere));
        Self { cell, shares, account, shared: true, cut_off: false }
    }

    /// A quota that others have a part in, and that this process keeps alone, because what they share cannot be
    /// had. A rule with [`OnError::Refuse`] lets nothing go by it.
    #[must_use]
    pub fn cut_off(rule: &Rule) -> Self {
        Self { cut_off: true, ..Self::new(rule) }
    }

    /// Whether it was made by [`State::cut_off`].
    #[must_use]
    pub const fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// The cell.
    #[must_use]
    pub fn cell(&self) -> &Cell {
        self.cell.get()
    }

    /// Whether an attempt may go. See [`Cell::before`]; this also sees to fair shares and keeps the account of
    /// who used what.
    pub fn before(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, user: &User, now: Timestamp) -> Verdict {
        self.ask(rule, claim, ask, (user, now.as_nanos()), |units, resets_at, at| {
            self.account.went(user, units, rule, resets_at, at);
        })
    }

    /// The same for one who makes many calls, and keeps a [`tally`](Self::tally) of them: threads that ask at once
    /// meet in the quota alone, and not in its account, too.
    pub fn before_by(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        tally: &Tally,
        now: Timestamp,
    ) -> Verdict {
        self.ask(rule, claim, ask, (tally.user(), now.as_nanos()), |units, resets_at, at| {
            self.account.went_by(tally, units, rule, resets_at, at);
        })
    }

    /// An account of its own for the calls of this user, part of this quota's: kept for as long as it is held, and
    /// until it was told of.
    #[must_use]
    pub fn tally(&self, user: User) -> Arc<Tally> {
        self.account.tally(user)
    }

    fn ask(
        &self,
        rule: &Rule,
        claim: &mut Claim,
        ask: &Ask,
        (user, at): (&User, u64),
        went: impl FnOnce(u64, Option<u64>, u64),
    ) -> Verdict {
        if claim.is_held() {
            return Verdict::Pass;
        }
        if self.cut_off && rule.on_error == OnError::Refuse {
            return Verdict::Refuse { until: Timestamp::from_nanos(at).plus(ASK_AGAIN), why: Why::Unshared };
        }
        let cell = self.cell();
        let shares = self.shares.as_ref().filter(|_| rule.fair).map(Home::get);
        let first = claim.asked_at().is_none();
        let bound = claim.bound(rule, ask, at);
        if let Some(wait) = claim.waiting(bound, at) {
            return wait;
        }
        let verdict = match shares {
            Some(shares) if !claim.has_slot() => {
                match shares.pass(rule, cell, claim, ask, (first, bound, at)) {
                    Ok(ahead) => {
                        let verdict = cell.ask(rule, claim, ask, (bound, ahead), at);
                        if matches!(verdict, Verdict::Wait { why: Why::FairShare, .. }) {
                            shares.wake(rule, cell, at);
                        } else {
                            shares.went(rule, cell, claim, at);
                        }
                        verdict
                    }
                    Err(verdict) => verdict,
                }
            }
            _ => cell.ask(rule, claim, ask, (bound, u64::MAX), at),
        };
        match verdict {
            Verdict::Pass => went(ask.units, resets_at(cell, at), at),
            Verdict::Refuse { until, why } => self.refused((until, why), user.customer, rule, at),
            Verdict::Wait { .. } => {}
        }
        verdict
    }

    /// A breach of ours, for want of nothing that others could say.
    fn refused(&self, (until, why): (Timestamp, Why), customer: u32, rule: &Rule, at: u64) {
        if why != Why::Unshared {
            let retry_at = if why.can_be_foreseen() { until.as_nanos() } else { 0 };
            self.breached(Breach { kind: Kind::Own, status: 0, why, retry_at, customer }, rule, at);
        }
    }

    /// The same by a quota that is counted in what only the vendor knows. See [`Cell::heed`].
    pub fn heed(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, user: &User, now: Timestamp) -> Verdict {
        if claim.is_held() {
            return Verdict::Pass;
        }
        let verdict = self.cell().heed(rule, claim, ask, now);
        let at = now.as_nanos();
        match verdict {
            Verdict::Pass => self.account.went(user, ask.units, rule, self.resets_at(at), at),
            Verdict::Refuse { until, why } => self.refused((until, why), user.customer, rule, at),
            Verdict::Wait { .. } => {}
        }
        verdict
    }

    /// Counts an attempt that goes in any case: no `[[quota]]` rule matches it, but the vendor's statements are
    /// kept, and a 429 is explained.
    pub fn watch(&self, rule: &Rule, claim: &mut Claim, ask: &Ask, user: &User, now: Timestamp) {
        if !claim.is_held() {
            self.cell().watch(claim, ask, now);
            let at = now.as_nanos();
            self.account.went(user, ask.units, rule, self.resets_at(at), at);
        }
    }

    /// An answer stated how the quota stands.
    pub fn state(&self, _rule: &Rule, claim: &Claim, stated: &Stated, now: Timestamp) -> Reading {
        let reading = self.cell().state(claim, stated, now);
        if reading == Reading::Taken
            && let Some(resets_at) = self.resets_at(now.as_nanos())
        {
            self.account.ends(resets_at, now.as_nanos());
        }
        reading
    }

    /// An answer was a 429, or had the `status` by which this vendor means one.
    pub fn limited(
        &self,
        rule: &Rule,
        claim: &Claim,
        (status, how): (u16, Limited),
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) {
        let at = now.as_nanos();
        self.cell().limited(claim, how, retry_at, now);
        let kind = Kind::from(how);
        let retry_at = self.cell().standing(now).free_at().map_or(at, Timestamp::as_nanos);
        self.breached(Breach { kind, status, why: Why::default(), retry_at, customer: 0 }, rule, at);
    }

    #[cold]
    #[inline(never)]
    fn breached(&self, breach: Breach, rule: &Rule, at: u64) {
        self.cell().breach(at);
        self.account.breached(breach, rule, self.resets_at(at), at);
    }

    /// The body of an answer said more than its head did: what the refusal means, or when it ends. It was counted
    /// as what it `seemed`, and counts once.
    pub fn reread(
        &self,
        claim: &Claim,
        status: u16,
        (seemed, how): (Limited, Limited),
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) {
        self.cell().limited(claim, how, retry_at, now);
        let retry_at = self.cell().standing(now).free_at().map_or(0, Timestamp::as_nanos);
        self.account.recount(status, (seemed.into(), how.into()), retry_at);
    }

    /// The attempt used `units`, not what was estimated.
    pub fn settle(&self, rule: &Rule, claim: &mut Claim, units: u64) {
        self.cell().settle(rule, claim, units);
    }

    /// The attempt is over.
    pub fn end(&self, claim: &mut Claim) {
        if claim.is_under_way() {
            self.cell().end(claim);
        }
    }

    /// The attempt did not go: another rule refused it, or the application cancelled it. What an incident says
    /// about the window still counts it.
    pub fn undo(&self, claim: &mut Claim) {
        self.cell().undo(claim);
    }

    /// How the quota stands.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        self.cell().standing(now)
    }

    /// How the quota stood when a call last asked or was answered, and a number that changes whenever one does; `None`
    /// where the vendor said nothing yet.
    #[must_use]
    pub fn glance(&self, now: Timestamp) -> Option<(u64, Standing)> {
        let mark = self.cell().mark();
        (mark != 0).then(|| (mark, self.cell().as_left(now)))
    }

    /// How the limit of its rule stands, and a number that changes whenever this process uses it; `None` where the rule
    /// states no limit, or this process has not used it yet.
    #[must_use]
    pub fn glance_at_limit(&self, rule: &Rule, now: Timestamp) -> Option<(u64, Configured)> {
        let limit = rule.limit?;
        let used = self.account.mark()?;
        let due = self.cell().due_at(rule, now);
        // What others share is told by whoever used it.
        let mark = if self.shared { used } else { used ^ due.map_or(0, Timestamp::as_nanos) };
        Some((mark, Configured { limit, burst: rule.burst_of(&limit), due_at: due }))
    }

    /// Whether others may use it too.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// What happened since the last question, to be asked once a second until it says `None`. While a window
    /// lasts, its incident may be told again with higher counts. Where somebody else who shares the cell was refused,
    /// it is what was used of that window here, with a `count` of 0.
    #[must_use]
    pub fn incident(&self, rule: &Rule, now: Timestamp) -> Option<Incident> {
        let told = self.account.tell(|| self.standing(now), rule.limit.as_ref())?;
        Some(Incident { shared: self.shared, ..told })
    }

    fn resets_at(&self, now: u64) -> Option<u64> {
        resets_at(self.cell(), now)
    }
}

fn resets_at(cell: &Cell, now: u64) -> Option<u64> {
    cell.time_left(now).map(|left| now.saturating_add(left))
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("cell", self.cell())
            .field("fair", &self.shares.is_some())
            .finish_non_exhaustive()
    }
}

/// Where a part of a quota lies.
enum Home<T> {
    /// With the quota itself: found without a question.
    Own(Box<T>),
    Elsewhere(Arc<dyn AsRef<T> + Send + Sync>),
}

impl<T> Home<T> {
    #[inline]
    fn get(&self) -> &T {
        match self {
            Self::Own(own) => own,
            Self::Elsewhere(home) => (**home).as_ref(),
        }
    }
}
