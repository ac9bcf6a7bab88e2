import type { ReactNode } from "react";
import { useCoseat } from "../coseat";
import { errorText } from "../errors";
import { Button } from "./Button";
import { Notice } from "./Notice";

export function Loading({ rows = 4 }: { rows?: number }) {
  const { t } = useCoseat();
  return (
    <div className="cs-loading" role="status">
      <span className="cs-hidden">{t("state.loading")}</span>
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} className="cs-skeleton" aria-hidden="true">
          <span />
          <span />
        </div>
      ))}
    </div>
  );
}

export function Failed({ error, onRetry }: { error: unknown; onRetry: () => void }) {
  const coseat = useCoseat();
  return (
    <Notice
      tone="error"
      isAlert
      title={coseat.t("state.failed")}
      actions={<Button onClick={onRetry}>{coseat.t("state.retry")}</Button>}
    >
      <p>{errorText(coseat, error)}</p>
    </Notice>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="cs-empty">
      <p className="cs-empty-title">{title}</p>
      {children}
    </div>
  );
}
