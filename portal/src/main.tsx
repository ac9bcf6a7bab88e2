import { createRoot } from "react-dom/client";
import { Page } from "./page/Page";
import { openSession } from "./page/session";
import "./styles/index.css";
import "./styles/page.css";

const root = document.getElementById("root");
if (root === null) throw new Error("The page has no place for the portal.");
void openSession().then((session) => createRoot(root).render(<Page session={session} />));
