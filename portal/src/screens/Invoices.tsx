import type { Invoice } from "../api";
import { useCoseat } from "../coseat";
import { useInvoices } from "../data";
import type { MessageKey } from "../i18n";
import { Button } from "../ui/Button";
import { Badge } from "../ui/Notice";
import { Empty, Failed, Loading } from "../ui/States";

const STATUS: Record<string, MessageKey> = {
  draft: "invoice.draft",
  open: "invoice.open",
  paid: "invoice.paid",
  uncollectible: "invoice.uncollectible",
  void: "invoice.void",
};

export function Invoices() {
  const { t } = useCoseat();
  const pages = useInvoices();
  const invoices = pages.data?.pages.flatMap((page) => page.data) ?? [];
  return (
    <>
      <h1 className="cs-screen-title">{t("nav.invoices")}</h1>
      {pages.isPending && <Loading />}
      {pages.isError && !pages.data && <Failed error={pages.error} onRetry={() => pages.refetch()} />}
      {pages.isSuccess && invoices.length === 0 && <Empty title={t("invoices.none")} />}
      {invoices.length > 0 && (
        <ul className="cs-card">
          {invoices.map((invoice) => (
            <InvoiceLine key={invoice.id} invoice={invoice} />
          ))}
        </ul>
      )}
      {pages.hasNextPage && (
        <Button isBusy={pages.isFetchingNextPage} onClick={() => void pages.fetchNextPage()}>
          {t("list.more")}
        </Button>
      )}
    </>
  );
}

function InvoiceLine({ invoice }: { invoice: Invoice }) {
  const { t, format } = useCoseat();
  const number = invoice.number ?? invoice.id;
  return (
    <li className="cs-line">
      <span>
        <span className="cs-card-title">
          {number}
          <Badge tone={invoice.status === "open" ? "warning" : "neutral"}>{t(STATUS[invoice.status ?? ""] ?? "status.other")}</Badge>
        </span>
        <span className="cs-muted">{format.date(invoice.created)}</span>
      </span>
      <span className="cs-actions">
        <strong>{format.money(invoice.total, invoice.currency)}</strong>
        {invoice.hosted_invoice_url && (
          <a className="cs-button cs-button-quiet" href={invoice.hosted_invoice_url} target="_blank" rel="noreferrer">
            {invoice.status === "open" ? t("invoice.pay") : t("invoice.view")}
            <span className="cs-hidden">{number}</span>
          </a>
        )}
        {invoice.invoice_pdf && (
          <a className="cs-button cs-button-quiet" href={invoice.invoice_pdf}>
            {t("invoice.pdf")}
            <span className="cs-hidden">{number}</span>
          </a>
        )}
      </span>
    </li>
  );
}
