import { useState } from "react";
import { useCoseat } from "../coseat";
import { useAction, useMe } from "../data";
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
  const customer = useMe();
  const { isBusy, failure, run } = useAction();
  const [typed, setTyped] = useState<Partial<Typed>>({});
  const read = customer.data;

  const save = () =>
    run(async () => {
      const given = Object.entries(typed).filter(([name, value]) => value !== (read?.[name as keyof Typed] ?? ""));
      const cleared = given.map(([name, value]) => [name, value === "" ? null : value]);
      if (given.length > 0) await api.updateCustomer(Object.fromEntries(cleared));
      await customer.refetch();
      setTyped({});
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
      {read && (
        <form
          className="cs-card"
          onSubmit={(event) => {
            event.preventDefault();
            if (!isBusy) void save();
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
                    value={typed[name] ?? read[name] ?? ""}
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
