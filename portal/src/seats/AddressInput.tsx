import { type ClipboardEvent, type KeyboardEvent, useRef } from "react";
import { useCoseat } from "../coseat";
import { codeText } from "../errors";
import { CloseIcon } from "../ui/icons";
import { type Address, addressesOf, joined } from "./addresses";

interface AddressInputProps {
  control: { id: string; "aria-describedby": string | undefined; "aria-invalid": true | undefined };
  addresses: Address[];
  text: string;
  onChange: (addresses: Address[], text: string) => void;
}

const ENDS_AN_ADDRESS = /[\s,;]/;

/** Takes one or many addresses, typed or pasted. Each becomes a tag that can be removed. */
export function AddressInput({ control, addresses, text, onChange }: AddressInputProps) {
  const coseat = useCoseat();
  const { t } = coseat;
  const input = useRef<HTMLInputElement>(null);
  const take = (typed: string) => onChange(joined(addresses, addressesOf(typed)), "");

  function keyPressed(event: KeyboardEvent<HTMLInputElement>) {
    if (event.key === "Enter" && text.trim() !== "") {
      event.preventDefault();
      take(text);
    }
    const last = addresses.at(-1);
    if (event.key === "Backspace" && text === "" && last) {
      event.preventDefault();
      onChange(addresses.slice(0, -1), last.text);
    }
  }

  function pasted(event: ClipboardEvent<HTMLInputElement>) {
    const clip = event.clipboardData.getData("text");
    if (!ENDS_AN_ADDRESS.test(clip.trim())) return;
    event.preventDefault();
    take(`${text}${clip}`);
  }

  const problemOf = (address: Address) =>
    address.problem === "invalid_address"
      ? t("address.invalid")
      : address.problem && codeText(coseat, address.problem, address.figures);

  return (
    <div className="cs-addresses" onClick={(event) => event.target === event.currentTarget && input.current?.focus()}>
      {addresses.length > 0 && (
        <ul className="cs-tags" aria-label={t("address.list")}>
          {addresses.map((address) => (
            <li key={address.text} className="cs-tag" data-bad={address.problem !== null || undefined}>
              <span className="cs-tag-text">
                {address.text}
                {address.problem && <span className="cs-tag-problem">{problemOf(address)}</span>}
              </span>
              <button
                type="button"
                className="cs-tag-remove"
                aria-label={t("address.remove", { address: address.text })}
                onClick={() => {
                  onChange(addresses.filter((other) => other !== address), text);
                  input.current?.focus();
                }}
              >
                <CloseIcon />
              </button>
            </li>
          ))}
        </ul>
      )}
      <input
        {...control}
        ref={input}
        className="cs-addresses-input"
        type="text"
        inputMode="email"
        autoComplete="off"
        autoCapitalize="off"
        spellCheck={false}
        placeholder={addresses.length === 0 ? t("address.placeholder") : undefined}
        value={text}
        onChange={(event) => {
          const typed = event.target.value;
          if (ENDS_AN_ADDRESS.test(typed.slice(-1)) && typed.trim() !== "") take(typed);
          else onChange(addresses, typed.trimStart());
        }}
        onKeyDown={keyPressed}
        onPaste={pasted}
        onBlur={() => text.trim() !== "" && take(text)}
      />
    </div>
  );
}
