import { type ComponentType, lazy, Suspense, useEffect, useState } from "react";
import { type Theme, useCoseat } from "../coseat";
import { type Language, LANGUAGES, type Locale, type MessageKey } from "../i18n";
import { Subscriptions } from "../screens/Subscriptions";
import { Button, IconButton } from "../ui/Button";
import { Select } from "../ui/Field";
import { ChevronIcon, MenuIcon } from "../ui/icons";
import { Menu } from "../ui/Menu";
import { Loading } from "../ui/States";
import { SomebodyNew } from "./SomebodyNew";
import { go, pathOf, type Screen, useRoute } from "./routing";
import type { DemoPerson } from "./session";

/** The dialog is fetched beside the data that it shows. */
const seatDialog = import("../seats/SeatDialog");
const Seats = lazy(() => seatDialog.then((module) => ({ default: module.Seats })));

const SCREENS: Partial<Record<Screen, ComponentType>> = {
  plans: lazy(() => import("../screens/Plans").then((module) => ({ default: module.Plans }))),
  invoices: lazy(() => import("../screens/Invoices").then((module) => ({ default: module.Invoices }))),
  "payment-methods": lazy(() => import("../screens/PaymentMethods").then((module) => ({ default: module.PaymentMethods }))),
  profile: lazy(() => import("../screens/Profile").then((module) => ({ default: module.Profile }))),
  invitations: lazy(() => import("../screens/Accept").then((module) => ({ default: module.Accept }))),
};

const NAVIGATION: [Screen, MessageKey][] = [
  ["subscriptions", "nav.subscriptions"],
  ["plans", "nav.plans"],
  ["invoices", "nav.invoices"],
  ["payment-methods", "nav.payment_methods"],
  ["profile", "nav.profile"],
];

/** The panel of `coseat dev`: the mailbox, the stand-in's clock, the last requests and events. */
const DEVELOPMENT_PANEL = "/dev";

const THEMES: [Theme, MessageKey][] = [
  ["system", "theme.system"],
  ["light", "theme.light"],
  ["dark", "theme.dark"],
];

interface ShellProps {
  locale: Locale;
  theme: Theme;
  onLocale: (locale: Locale) => void;
  onTheme: (theme: Theme) => void;
  development: { people: DemoPerson[]; person: string; onPerson: (email: string) => void } | null;
}

export function Shell({ locale, theme, onLocale, onTheme, development }: ShellProps) {
  const { t } = useCoseat();
  const route = useRoute();
  const Current = SCREENS[route.screen];
  const title = NAVIGATION.find(([screen]) => screen === route.screen)?.[1];
  useEffect(() => {
    document.title = title ? t("page.title", { screen: t(title) }) : t("product.name");
  }, [t, title]);
  return (
    <div className="cs-page">
      <a className="cs-skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>
        {t("nav.skip")}
      </a>
      <header className="cs-header">
        <a className="cs-brand" href={pathOf("subscriptions")}>
          <span className="cs-brand-mark" aria-hidden="true" />
          {t("product.name")}
        </a>
        <nav className="cs-nav" aria-label={t("nav.main")}>
          {NAVIGATION.map(([screen, key]) => (
            <a key={screen} href={pathOf(screen)} aria-current={screen === route.screen ? "page" : undefined}>
              {t(key)}
            </a>
          ))}
          {development && <a href={DEVELOPMENT_PANEL}>{t("nav.development")}</a>}
        </nav>
        <div className="cs-header-end">
          {development && <PersonMenu {...development} />}
          <span className="cs-nav-menu">
            <Menu
              trigger={<IconButton label={t("nav.main")}><MenuIcon /></IconButton>}
              entries={[
                ...NAVIGATION.map(([screen, key]) => ({
                  label: t(key),
                  isCurrent: screen === route.screen,
                  onSelect: () => go(pathOf(screen)),
                })),
                ...(development ? [{ label: t("nav.development"), onSelect: () => location.assign(DEVELOPMENT_PANEL) }] : []),
              ]}
            />
          </span>
        </div>
      </header>
      <main className="cs-main" id="main" tabIndex={-1}>
        <Suspense fallback={<Loading />}>{Current ? <Current /> : <Subscriptions isStart={route.isStart} />}</Suspense>
      </main>
      <footer className="cs-footer">
        <Select aria-label={t("footer.language")} value={locale} onChange={(event) => onLocale(event.target.value as Locale)}>
          {Object.entries<Language>(LANGUAGES).filter(([, { isDevelopment }]) => development || !isDevelopment).map(([tag, language]) => (
            <option key={tag} value={tag} lang={tag}>
              {language.name}
            </option>
          ))}
        </Select>
        <Select aria-label={t("footer.theme")} value={theme} onChange={(event) => onTheme(event.target.value as Theme)}>
          {THEMES.map(([value, key]) => (
            <option key={value} value={value}>
              {t(key)}
            </option>
          ))}
        </Select>
      </footer>
      {route.screen === "shared" && route.id !== null && (
        <Suspense fallback={null}>
          <Seats subscriptionId={route.id} onClose={() => go(pathOf("subscriptions"))} />
        </Suspense>
      )}
    </div>
  );
}

/** Switches between the people of the demonstration and somebody new. */
function PersonMenu({ people, person, onPerson }: NonNullable<ShellProps["development"]>) {
  const { t } = useCoseat();
  const [isNew, setNew] = useState(false);
  const current = people.find((one) => one.email === person)?.name ?? person;
  return (
    <>
      <Menu
        trigger={
          <Button variant="quiet" className="cs-person" aria-label={t("person_menu.label", { name: current })}>
            <span className="cs-person-name">{current}</span>
            <ChevronIcon />
          </Button>
        }
        entries={[
          ...people.map((one) => ({
            label: one.name ?? one.email,
            isCurrent: one.email === person,
            onSelect: () => onPerson(one.email),
          })),
          { label: t("person_menu.new"), onSelect: () => setNew(true) },
        ]}
      />
      {isNew && <SomebodyNew onClose={() => setNew(false)} onPerson={onPerson} />}
    </>
  );
}
