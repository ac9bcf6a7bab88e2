import { useState } from "react";
import { useCoseat } from "../coseat";
import { Button } from "../ui/Button";
import { Field, TextInput } from "../ui/Field";
import { Modal } from "../ui/Modal";

export function SomebodyNew({ onClose, onPerson }: { onClose: () => void; onPerson: (email: string) => void }) {
  const { t } = useCoseat();
  const [email, setEmail] = useState("");
  return (
    <Modal title={t("person_menu.new_title")} description={t("person_menu.new_text")} isDirty={email !== ""} onClose={onClose}>
      <form
        className="cs-modal-body"
        onSubmit={(event) => {
          event.preventDefault();
          onClose();
          onPerson(email.trim());
        }}
      >
        <Field label={t("field.email")}>
          {(control) => (
            <TextInput {...control} type="email" required value={email} onChange={(event) => setEmail(event.target.value)} />
          )}
        </Field>
        <div className="cs-actions cs-actions-end">
          <Button variant="primary" type="submit">
            {t("person_menu.sign_in")}
          </Button>
        </div>
      </form>
    </Modal>
  );
}
