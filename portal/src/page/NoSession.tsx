import { useCoseat } from "../coseat";
import { Notice } from "../ui/Notice";

export function NoSession() {
  const { t } = useCoseat();
  return (
    <main className="cs-page cs-main">
      <Notice tone="info" title={t("session.none")}>
        <p>{t("session.text")}</p>
      </Notice>
    </main>
  );
}
