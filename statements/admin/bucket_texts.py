"""What the buckets mean, in a sentence for accountants."""

from django.utils.translation import gettext_lazy

from statements.models import Bucket

# In the order in which they are shown: what waits for an operator first.
EXPLANATIONS = {
    Bucket.MISSING_WEBHOOK: gettext_lazy(
        "On the bank statement, and the bank sent no webhook of it: not posted."
    ),
    Bucket.UNIDENTIFIED: gettext_lazy("On the bank statement, but without a usable INN of the payer."),
    Bucket.UNPOSTED: gettext_lazy(
        "On the bank statement; its webhook has come, but failed or waits in the queue."
    ),
    Bucket.AMOUNT_MISMATCH: gettext_lazy(
        "Payer, number and day agree with a posted payment, the amount doesn't."
    ),
    Bucket.PAYER_MISMATCH: gettext_lazy(
        "Amount, number and day agree with a posted payment, the payer doesn't."
    ),
    Bucket.SUGGESTED: gettext_lazy(
        "Payer, amount and day agree with a posted payment, only the number doesn't."
    ),
    Bucket.DUPLICATE: gettext_lazy("Posted twice: another payment matches the only line of the statement."),
    Bucket.NOT_ON_STATEMENT: gettext_lazy("Posted, but the bank statements of these days don't have it."),
    Bucket.REVERSED_BY_BANK: gettext_lazy("The bank took the money back; the payment is still posted."),
    Bucket.AWAITING_STATEMENT: gettext_lazy("Posted; the bank statement of its day is not here yet."),
    Bucket.MATCHED: gettext_lazy("Line and payment agree to the kopeck."),
    Bucket.EXCLUDED: gettext_lazy("Own money, outgoing payments, foreign currency."),
    Bucket.KEPT: gettext_lazy("An operator decided that the difference stays."),
    Bucket.KEPT_WEBHOOK: gettext_lazy("An operator decided that the payment stays without a line."),
}
