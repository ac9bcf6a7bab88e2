import { type ComponentProps, type ReactNode, useId } from "react";
import { ChevronIcon } from "./icons";

interface FieldProps {
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  isLabelHidden?: boolean;
  children: (control: { id: string; "aria-describedby": string | undefined; "aria-invalid": true | undefined }) => ReactNode;
}

/** A label, its control, a hint and an error that are tied to it. */
export function Field({ label, hint, error, isLabelHidden = false, children }: FieldProps) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  return (
    <div className="cs-field">
      <label htmlFor={id} className={isLabelHidden ? "cs-hidden" : "cs-label"}>
        {label}
      </label>
      {children({ id, "aria-describedby": described || undefined, "aria-invalid": error ? true : undefined })}
      {hint && (
        <p id={`${id}-hint`} className="cs-hint">
          {hint}
        </p>
      )}
      {error && (
        <p id={`${id}-error`} className="cs-error">
          {error}
        </p>
      )}
    </div>
  );
}

export function Select({ children, className = "", ...rest }: ComponentProps<"select">) {
  return (
    <span className={`cs-select ${className}`}>
      <select {...rest}>{children}</select>
      <ChevronIcon />
    </span>
  );
}

export function TextInput({ className = "", ...rest }: ComponentProps<"input">) {
  return <input className={`cs-input ${className}`} autoComplete="off" spellCheck={false} {...rest} />;
}
