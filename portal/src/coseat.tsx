import { DirectionProvider } from "@radix-ui/react-direction";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useRef, useState } from "react";
import { type Api, createApi, type Token } from "./api";
import { type Formats, formats } from "./format";
import { LANGUAGES, type Locale, type Translate, chosenLocale, translator } from "./i18n";
import type { PaymentConfirmation } from "./payments/confirmation";

export type Theme = "system" | "light" | "dark";

export interface CoseatProps {
  /** Where the API is, without `/v1`. Empty for the page's own origin. */
  baseUrl: string;
  token: Token;
  locale?: Locale;
  theme?: Theme;
  /** How payments are confirmed. Without it, the hosted page of an invoice is offered. */
  payments?: PaymentConfirmation;
}

export interface Coseat {
  api: Api;
  t: Translate;
  format: Formats;
  locale: Locale;
  payments: PaymentConfirmation | null;
  /** Shows a result for some seconds and reads it to screen readers. */
  announce: (text: string) => void;
  /** The element in which dialogs and menus are put, so that they have the theme and direction. */
  container: HTMLElement | null;
}

const Context = createContext<Coseat | null>(null);
const SHOWN_FOR = 6_000;

export function useCoseat(): Coseat {
  const coseat = useContext(Context);
  if (coseat === null) throw new Error("Components of the portal need <CoseatProvider>.");
  return coseat;
}

function newQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      // The client retries what may pass.
      queries: { networkMode: "always", staleTime: 5_000, retry: false },
    },
  });
}

function tokenOf(token: Token): string | Promise<string> {
  return typeof token === "string" ? token : token();
}

/** Gives its children the API, the language and the theme of one person. Another person needs another `key`. */
export function CoseatProvider({ baseUrl, token, locale, theme = "system", payments, children }: CoseatProps & { children: ReactNode }) {
  const language = locale ?? chosenLocale(navigator.languages);
  const [t, setT] = useState<{ locale: Locale; translate: Translate } | null>(null);
  const [container, setContainer] = useState<HTMLElement | null>(null);
  const [told, setTold] = useState<{ text: string; count: number } | null>(null);
  const timer = useRef<number>(undefined);
  // A function may be a new one at each render of the host. The newest is asked, and what was read and typed stays.
  const newest = useRef(token);
  newest.current = token;
  const fixed = typeof token === "string" ? token : null;
  const api = useMemo(() => createApi(baseUrl, fixed ?? (() => tokenOf(newest.current))), [baseUrl, fixed]);
  const queries = useMemo(() => newQueryClient(), [api]);

  useEffect(() => {
    let isCurrent = true;
    void LANGUAGES[language].load().then((messages) => {
      if (isCurrent) setT({ locale: language, translate: translator(language, messages) });
    });
    return () => {
      isCurrent = false;
    };
  }, [language]);

  const announce = useCallback((text: string) => {
    window.clearTimeout(timer.current);
    setTold((before) => ({ text, count: (before?.count ?? 0) + 1 }));
    timer.current = window.setTimeout(() => setTold(null), SHOWN_FOR);
  }, []);

  const coseat = useMemo<Coseat | null>(
    () =>
      t && {
        api,
        t: t.translate,
        format: formats(t.locale),
        locale: t.locale,
        payments: payments ?? null,
        announce,
        container,
      },
    [api, t, payments, announce, container],
  );
  const shown = t?.locale ?? language;
  return (
    <div className="coseat" ref={setContainer} lang={shown} dir={LANGUAGES[shown].direction} data-theme={theme}>
      {coseat && container && (
        <DirectionProvider dir={LANGUAGES[shown].direction}>
          <QueryClientProvider client={queries}>
            <Context value={coseat}>{children}</Context>
          </QueryClientProvider>
        </DirectionProvider>
      )}
      <div className="cs-toast" role="status" aria-live="polite" data-shown={told !== null}>
        {/* A new element each time, so that the same text is read again. */}
        {told && <span key={told.count}>{told.text}</span>}
      </div>
    </div>
  );
}
