import type { ComponentProps } from "react";

export interface ButtonProps extends ComponentProps<"button"> {
  variant?: "primary" | "plain" | "quiet" | "danger";
  isBusy?: boolean;
}

/** A button. While busy it keeps the focus and does nothing. */
export function Button({ variant = "plain", isBusy = false, className = "", onClick, children, ...rest }: ButtonProps) {
  return (
    <button
      type="button"
      className={`cs-button cs-button-${variant} ${className}`}
      aria-busy={isBusy || undefined}
      aria-disabled={isBusy || undefined}
      onClick={(event) => {
        if (isBusy) event.preventDefault();
        else onClick?.(event);
      }}
      {...rest}
    >
      {isBusy && <span className="cs-spinner" aria-hidden="true" />}
      {children}
    </button>
  );
}

export function IconButton({ label, className = "", children, ...rest }: ComponentProps<"button"> & { label: string }) {
  return (
    <button type="button" className={`cs-icon-button ${className}`} aria-label={label} title={label} {...rest}>
      {children}
    </button>
  );
}
