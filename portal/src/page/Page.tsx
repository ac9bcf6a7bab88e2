import { useMemo, useState } from "react";
import { CoseatProvider, type Theme } from "../coseat";
import { chosenLocale, type Locale } from "../i18n";
import { NoSession } from "./NoSession";
import { developmentToken, type Session } from "./session";
import { Shell } from "./Shell";

/** What the person chose for how the page looks. Who is signed in is kept for this tab only, and no token at all. */
const CHOSEN_LOCALE = "coseat-locale";
const CHOSEN_THEME = "coseat-theme";
const CHOSEN_PERSON = "coseat-person";

const noToken = () => "";

export function Page({ session }: { session: Session | null }) {
  const [locale, setLocale] = useState<Locale>(() =>
    chosenLocale([localStorage.getItem(CHOSEN_LOCALE) ?? "", ...navigator.languages]),
  );
  const [theme, setTheme] = useState<Theme>(() => (localStorage.getItem(CHOSEN_THEME) as Theme | null) ?? "system");
  const people = session?.kind === "development" ? session.people : [];
  const [person, setPerson] = useState(
    () => new URLSearchParams(location.search).get("as") ?? sessionStorage.getItem(CHOSEN_PERSON) ?? people[0]?.email ?? "",
  );
  const token = useMemo(() => {
    if (session === null) return noToken;
    return session.kind === "host" ? session.token : developmentToken(person);
  }, [session, person]);

  return (
    <CoseatProvider
      key={person}
      baseUrl={session?.kind === "host" ? session.baseUrl : ""}
      token={token}
      locale={locale}
      theme={theme}
      {...(session?.payments ? { payments: session.payments } : {})}
    >
      {session === null ? (
        <NoSession />
      ) : (
        <Shell
          locale={locale}
          theme={theme}
          onLocale={(chosen) => {
            localStorage.setItem(CHOSEN_LOCALE, chosen);
            setLocale(chosen);
          }}
          onTheme={(chosen) => {
            localStorage.setItem(CHOSEN_THEME, chosen);
            setTheme(chosen);
          }}
          development={
            session.kind === "development"
              ? {
                  people,
                  person,
                  onPerson: (email) => {
                    sessionStorage.setItem(CHOSEN_PERSON, email);
                    setPerson(email);
                  },
                }
              : null
          }
        />
      )}
    </CoseatProvider>
  );
}
