import type { ReactNode } from "react";

interface NoticeProps {
  tone: "info" | "warning" | "error" | "success";
  title?: string | undefined;
  /** True for what just happened, so that screen readers read it at once. */
  isAlert?: boolean;
  actions?: ReactNode;
  children?: ReactNode;
}

export function Notice({ tone, title, isAlert = false, actions, children }: NoticeProps) {
  return (
    <div className={`cs-notice cs-notice-${tone}`} role={isAlert ? "alert" : undefined}>
      <div className="cs-notice-text">
        {title && <p className="cs-notice-title">{title}</p>}
        {children}
      </div>
      {actions && <div className="cs-notice-actions">{actions}</div>}
    </div>
  );
}

export function Badge({ tone = "neutral", children }: { tone?: "neutral" | "accent" | "warning" | "danger"; children: ReactNode }) {
  return <span className={`cs-badge cs-badge-${tone}`}>{children}</span>;
}
