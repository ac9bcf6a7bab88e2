import { useEffect, useState } from "react";
import { useCoseat } from "../coseat";
import { useAction, useCustomer } from "../data";
import { Button } from "../ui/Button";
import { Failure } from "../ui/Failure";
import { Field, TextInput } from "../ui/Field";
import { Failed, Loading } from "../ui/States";

interface Typed {
  name: string;
  email: string;
  phone: string;
}

export function Profile() {
  const { api, t, announce, format } = useCoseat();
  const customer = useCustomer();
  const { isBusy, failure, run } = useAction();
  const [typed, setTyped] = useState<Typed | null>(null);
  const read = customer.data;
  useEffect(() => {
    // What was typed is kept when the customer is read again.
    if (read) setTyped((before) => before ?? { name: read.name ?? "", email: read.email ?? "", phone: read.phone ?? "" });
  }, [read]);

  const save = (profile: Typed) =>
    run(async () => {
      const given = Object.fromEntries(
        Object.entries(profile).filter(([name, value]) => value !== (read?.[name as keyof Typed] ?? "")),
      );
      if (Object.keys(given).length > 0) await api.updateCustomer(given);
      await customer.refetch();
      announce(t("told.profile"));
    });

  const fields = [
    ["name", t("field.name"), "text", "name"],
    ["email", t("field.email"), "email", "email"],
    ["phone", t("field.phone"), "tel", "tel"],
  ] as const;
  return (
    <>
      <h1 className="cs-screen-title">{t("nav.profile")}</h1>
      {customer.isPending && <Loading rows={3} />}
      {customer.isError && !read && <Failed error={customer.error} onRetry={() => customer.refetch()} />}
      {read && typed && (
        <form
          className="cs-card"
          onSubmit={(event) => {
            event.preventDefault();
            if (!isBusy) void save(typed);
          }}
        >
          <div className="cs-form">
            {fields.map(([name, label, type, autoComplete]) => (
              <Field key={name} label={label}>
                {(control) => (
                  <TextInput
                    {...control}
                    type={type}
                    autoComplete={autoComplete}
                    value={typed[name]}
                    onChange={(event) => setTyped({ ...typed, [name]: event.target.value })}
                  />
                )}
              </Field>
            ))}
            {read.balance !== 0 && read.currency && (
              <p className="cs-muted">
                {read.balance < 0
                  ? t("profile.credit", { amount: format.money(-read.balance, read.currency) })
                  : t("profile.debt", { amount: format.money(read.balance, read.currency) })}
              </p>
            )}
            <Failure failure={failure} />
            <div className="cs-actions">
              <Button variant="primary" type="submit" isBusy={isBusy}>
                {t("profile.save")}
              </Button>
            </div>
          </div>
        </form>
      )}
    </>
  );
}
